//! AWS Signature Version 4, as a verifier: header and presigned requests, and bodies that come in signed or unsigned
//! chunks. Checked against AWS's published examples.
//!
//! | module | one idea |
//! |---|---|
//! | [`canonical`] | the canonical request, the string to sign, the signature |
//! | [`claims`] | what a request says about its own signature |
//! | [`chunks`] | the `aws-chunked` decoder |
//! | [`clock`] | `20130524T000000Z` |
//!
//! No I/O, and nothing here is believed before it is verified.

pub mod canonical;
pub mod chunks;
pub mod claims;
pub mod clock;

/// What a credential scope says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `20130524`.
    pub date: String,
    /// `us-east-1`.
    pub region: String,
    /// `s3`.
    pub service: String,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}
