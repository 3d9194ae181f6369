//! AWS Signature Version 4: the rules are `belvedere-signature`'s, bodies on their way in are checked here.

pub mod body;

pub use belvedere_signature::{Scope, canonical, chunks, claims, clock};
