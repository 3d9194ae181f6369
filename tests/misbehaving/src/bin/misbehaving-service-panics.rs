//! A service that panics.

fn main() {
    panic!("a bad service");
}
