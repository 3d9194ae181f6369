//! A table of the firmware's that is another one for a while: the device tree, while this slot's kernel is the one that starts.
//!
//! When the kernel gives up, the one before is *the* device tree again: whatever starts next and brings none of its own must be
//! given the firmware's, and not this slot's.

use core::ffi::c_void;

/// What can be done with the table.
pub trait Table {
    /// Why something cannot be done.
    type Error;

    /// Makes what lies there the table; null takes it out.
    ///
    /// # Errors
    /// When the firmware refuses; the table is as it was then.
    ///
    /// # Safety
    /// It is null or such a table, and stays as long as it is the table.
    unsafe fn set(&mut self, table: *const c_void) -> Result<(), Self::Error>;

    /// Gives memory back.
    ///
    /// # Safety
    /// Nobody uses it any more.
    unsafe fn free(&mut self, table: *const c_void);

    /// Tells that ours stays the table, and why.
    fn stays(&mut self, error: Self::Error);
}

/// The exchange; it ends when this is dropped.
#[derive(Debug)]
pub struct Exchange<T: Table> {
    table: T,
    before: *const c_void,
    ours: *const c_void,
}

impl<T: Table> Exchange<T> {
    /// Makes `ours` the table, in the place of `before`.
    ///
    /// # Errors
    /// When the firmware refuses; `ours` is given back then.
    ///
    /// # Safety
    /// `before` is what is the table now, or null when there is none; `ours` is one in memory that nobody else uses, which this
    /// gives back.
    pub unsafe fn begin(mut table: T, before: *const c_void, ours: *const c_void) -> Result<Self, T::Error> {
        // SAFETY: a table by this function's contract, and given back only when it is none any more.
        match unsafe { table.set(ours) } {
            Ok(()) => Ok(Self { table, before, ours }),
            Err(error) => {
                // SAFETY: it did not become the table, and nobody else uses it.
                unsafe { table.free(ours) };
                Err(error)
            }
        }
    }
}

impl<T: Table> Drop for Exchange<T> {
    fn drop(&mut self) {
        // SAFETY: what was the table before, or null; once ours is none, nobody knows of its memory.
        unsafe {
            match self.table.set(self.before) {
                Ok(()) => self.table.free(self.ours),
                Err(error) => self.table.stays(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::ptr::{null, without_provenance};

    #[derive(Debug, PartialEq, Eq)]
    enum Done {
        Set(usize),
        Freed(usize),
        Stays,
    }

    /// Refuses to set the table when as many things were done as this says.
    struct Fake(usize, Rc<RefCell<Vec<Done>>>);

    impl Table for Fake {
        type Error = ();
        unsafe fn set(&mut self, table: *const c_void) -> Result<(), ()> {
            if self.1.borrow().len() == self.0 {
                return Err(());
            }
            self.1.borrow_mut().push(Done::Set(table.addr()));
            Ok(())
        }
        unsafe fn free(&mut self, table: *const c_void) {
            self.1.borrow_mut().push(Done::Freed(table.addr()));
        }
        fn stays(&mut self, (): ()) {
            self.1.borrow_mut().push(Done::Stays);
        }
    }

    fn exchange(refuses: usize, before: *const c_void) -> Vec<Done> {
        let done = Rc::default();
        // SAFETY: the fake looks at no memory.
        drop(unsafe { Exchange::begin(Fake(refuses, Rc::clone(&done)), before, without_provenance(7)) });
        Rc::into_inner(done).unwrap().into_inner()
    }

    /// boot L6: the next slot's kernel was given the tree of the one that had given up.
    #[test]
    fn the_tree_before_is_the_tree_again_when_the_kernel_gives_up() {
        assert_eq!(exchange(9, without_provenance(3)), [Done::Set(7), Done::Set(3), Done::Freed(7)]);
        assert_eq!(exchange(9, null()), [Done::Set(7), Done::Set(0), Done::Freed(7)]);
    }

    #[test]
    fn memory_is_given_back_when_it_is_no_table_and_kept_while_it_is() {
        assert_eq!(exchange(0, without_provenance(3)), [Done::Freed(7)]);
        assert_eq!(exchange(1, without_provenance(3)), [Done::Set(7), Done::Stays]);
    }
}
