//! Where decoding begins, after losses and in streams that are joined in their middle, and which pictures are shown.
//!
//! | what comes | what is done |
//! |---|---|
//! | a key picture (IDR or a recovery point) | decoding begins; pictures are shown once the decoder says that they are whole |
//! | a picture that refers to no other, in a stream that never had a key picture | decoding begins; it and all that follow it in the order of display are shown |
//! | the same, in another stream | ditto after [`PATIENCE_FOR_A_KEY`] |
//! | neither | after [`PATIENCE`] everything is decoded and shown, as it is: some cameras refresh the picture bit by bit |

/// After so many access units a picture that refers to no other is good enough, although the stream has key pictures.
const PATIENCE_FOR_A_KEY: u32 = 60;
/// After so many access units everything is.
const PATIENCE: u32 = 300;

/// What is known of an access unit before it is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unit {
    /// An IDR picture or a recovery point.
    pub key: bool,
    /// It refers to no other picture.
    pub intra: bool,
    /// Something before it was lost.
    pub gap: bool,
    /// When it arrived; it names its picture.
    pub timestamp_us: i64,
}

/// What to do with an access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Decode it.
    Decode,
    /// Forget what came before, then decode it.
    Restart,
    /// Leave it out.
    Skip,
}

/// Which pictures are shown that the decoder does not call whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unrecovered {
    Hidden,
    /// From the picture of this time stamp on.
    From(i64),
    Shown,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    needs_key: bool,
    /// Access units left out since, or decoded without a picture that was shown.
    waited: u32,
    had_a_key: bool,
    unrecovered: Unrecovered,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { needs_key: true, waited: 0, had_a_key: false, unrecovered: Unrecovered::Hidden }
    }
}

impl Gate {
    /// What to do with the next access unit.
    pub fn pass(&mut self, unit: Unit) -> Pass {
        self.needs_key |= unit.gap;
        self.had_a_key |= unit.key;
        self.waited += 1;
        if !self.needs_key {
            if self.waited > PATIENCE {
                // It began at a recovery point, and there is still no whole picture.
                self.unrecovered = Unrecovered::Shown;
            }
            return Pass::Decode;
        }
        self.unrecovered = if unit.key {
            Unrecovered::Hidden
        } else if unit.intra && (!self.had_a_key || self.waited > PATIENCE_FOR_A_KEY) {
            Unrecovered::From(unit.timestamp_us)
        } else if self.waited > PATIENCE {
            Unrecovered::Shown
        } else {
            return Pass::Skip;
        };
        self.needs_key = false;
        self.waited = 0;
        Pass::Restart
    }

    /// The last one could not be decoded.
    pub fn failed(&mut self) {
        self.needs_key = true;
        self.waited = 0;
    }

    /// Whether the picture of an access unit that came out of the decoder is shown.
    pub fn show(&mut self, timestamp_us: i64, unrecovered: bool) -> bool {
        if self.unrecovered == Unrecovered::From(timestamp_us) {
            self.unrecovered = Unrecovered::Shown;
        }
        let shown = !unrecovered || self.unrecovered == Unrecovered::Shown;
        if shown {
            self.waited = 0;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Unit = Unit { key: false, intra: false, gap: false, timestamp_us: 0 };
    const KEY: Unit = Unit { key: true, intra: true, ..NOTHING };
    const INTRA: Unit = Unit { intra: true, timestamp_us: 9, ..NOTHING };
    const GAP: Unit = Unit { gap: true, ..NOTHING };

    #[test]
    fn decoding_begins_at_a_key_picture_and_after_a_loss_at_the_next() {
        let mut gate = Gate::default();
        for (unit, pass) in [
            (NOTHING, Pass::Skip),
            (KEY, Pass::Restart),
            (NOTHING, Pass::Decode),
            (GAP, Pass::Skip),
            (NOTHING, Pass::Skip),
            (INTRA, Pass::Skip),
            (KEY, Pass::Restart),
            (KEY, Pass::Decode),
        ] {
            assert_eq!(gate.pass(unit), pass);
        }
        gate.failed();
        assert_eq!(gate.pass(NOTHING), Pass::Skip);
    }

    /// Field case recovery-points-only: what lies before the recovery point in the order of display is not shown.
    #[test]
    fn pictures_that_are_not_whole_are_hidden() {
        let mut gate = Gate::default();
        gate.pass(KEY);
        assert!(!gate.show(1, true));
        assert!(gate.show(2, false));
        for _ in 0..PATIENCE {
            gate.pass(NOTHING);
            assert!(!gate.show(3, true));
        }
        gate.pass(NOTHING);
        assert!(gate.show(4, true), "but not for ever");
    }

    #[test]
    fn a_stream_without_key_pictures_is_shown_from_a_picture_that_needs_no_other() {
        let mut gate = Gate::default();
        assert_eq!((gate.pass(NOTHING), gate.pass(INTRA)), (Pass::Skip, Pass::Restart));
        assert!(!gate.show(7, true), "decoded after it, shown before it");
        assert!(gate.show(9, true) && gate.show(8, true));
        // One that has them is waited for.
        let mut gate = Gate::default();
        gate.pass(KEY);
        assert_eq!(gate.pass(GAP), Pass::Skip);
        let skipped = (0..1000).take_while(|_| gate.pass(INTRA) == Pass::Skip).count() as u32;
        assert_eq!(skipped, PATIENCE_FOR_A_KEY - 1);
    }

    #[test]
    fn a_camera_that_never_sends_anything_to_begin_with_is_tried_after_a_while() {
        let mut gate = Gate::default();
        for _ in 0..PATIENCE {
            assert_eq!(gate.pass(NOTHING), Pass::Skip);
        }
        assert_eq!(gate.pass(NOTHING), Pass::Restart);
        assert_eq!(gate.pass(NOTHING), Pass::Decode);
        assert!(gate.show(0, true));
    }
}
