//! `org.belvedere.Provisioning.Sign`: who asks, how often, with which key.
//!
//! A signature keeps the TPM for up to a second, and the TPM is everybody's. So no more is asked of it than an appliance
//! needs, whatever the agent does: the rest is answered `busy` at no cost.

use crate::identity::Standing;
use crate::key::KeptKey;
use crate::secure_world_key;
use crate::tpm_key::{self, SIGN_TIME};
use belvedere_interfaces::Failure;
use belvedere_interfaces::provisioning::{ANOTHER_KEY, BUSY, SIGNATURES_A_SECOND, Sign, Signed};
use belvedere_secure_world::device::OpTee;
use belvedere_tpm_device::Open;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many wait for one another at most: the last is answered before its caller gives up.
const AT_ONCE: usize = 4;
const SECOND: Duration = Duration::from_secs(1);

/// Who makes signatures.
pub trait SignDigest: Send + Sync {
    /// Signs a SHA-256 digest: `Ecdsa-Sig-Value`, DER. One line of error.
    fn sign(&self, key: &KeptKey, digest: &[u8; 32]) -> Result<Vec<u8>, String>;
}

/// The keeper that has the key, opened anew for each signature.
pub struct Keepers {
    /// The TPM.
    pub tpm: Box<Open>,
    /// OP-TEE's device.
    pub secure_world: PathBuf,
}

impl SignDigest for Keepers {
    fn sign(&self, key: &KeptKey, digest: &[u8; 32]) -> Result<Vec<u8>, String> {
        match key {
            KeptKey::Tpm(key) => tpm_key::sign(&mut *(self.tpm)(SIGN_TIME)?, key, digest),
            KeptKey::SecureWorld(key) => {
                let world = OpTee::at(&self.secure_world).map_err(|error| error.to_string())?;
                secure_world_key::sign(&world, key, digest)
            }
        }
    }
}

/// Decides whether another signature is made now.
#[derive(Debug, Default)]
struct Rate {
    /// When the latest began, oldest first.
    began: VecDeque<Instant>,
    running: usize,
}

impl Rate {
    /// Whether another one may begin. Whoever is told so says when it has [ended](Rate::end).
    fn begin(&mut self, now: Instant) -> bool {
        while self.began.front().is_some_and(|began| now.saturating_duration_since(*began) >= SECOND) {
            self.began.pop_front();
        }
        let may = self.began.len() < SIGNATURES_A_SECOND && self.running < AT_ONCE;
        if may {
            self.began.push_back(now);
            self.running += 1;
        }
        may
    }

    fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }
}

/// Answers [`Sign`].
pub struct Signing {
    signer: Box<dyn SignDigest>,
    rate: Mutex<Rate>,
    /// One signature after the other: chips answer one command at a time in any case.
    turn: Mutex<()>,
}

fn fail(reason: &str, message: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), message: message.into() }
}

impl Signing {
    /// With this signer.
    pub fn new(signer: Box<dyn SignDigest>) -> Self {
        Self { signer, rate: Mutex::default(), turn: Mutex::default() }
    }

    /// Signs with the key of the identity that stands, if that is the caller's.
    pub fn sign(&self, standing: &Mutex<Standing>, call: &Sign) -> Result<Signed, Failure> {
        let key = key_of(&standing.lock().unwrap_or_else(PoisonError::into_inner), call.generation)?;
        if !self.rate.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now()) {
            return Err(fail(BUSY, format!("no more than {SIGNATURES_A_SECOND} signatures a second are made; try again")));
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = self.signer.sign(&key, &call.digest);
        drop(turn);
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).end();
        signature.map(|signature| Signed { signature }).map_err(|message| {
            log::error!("{message}");
            fail("tpm", message)
        })
    }
}

/// The key that this caller may use.
fn key_of(standing: &Standing, generation: u64) -> Result<KeptKey, Failure> {
    let Some(stored) = standing.identity() else {
        return Err(fail("not_provisioned", "the appliance has no identity to sign for"));
    };
    if stored.identity.generation != generation {
        return Err(fail(ANOTHER_KEY, format!("identity {generation} is not the one that stands; ask for it again")));
    }
    stored.wrapped_key.clone().ok_or_else(|| fail(ANOTHER_KEY, "the key came with the identity; sign with that"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::{stored, wrapped};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Signs with the digest itself, or fails.
    struct Fake(Arc<AtomicUsize>, bool);

    impl SignDigest for Fake {
        fn sign(&self, key: &KeptKey, digest: &[u8; 32]) -> Result<Vec<u8>, String> {
            assert_eq!(key, &wrapped());
            self.0.fetch_add(1, Ordering::SeqCst);
            if self.1 { Ok(digest.to_vec()) } else { Err("the TPM refuses Sign: x".into()) }
        }
    }

    fn signing(works: bool) -> (Signing, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        (Signing::new(Box::new(Fake(Arc::clone(&count), works))), count)
    }

    fn in_the_tpm(generation: u64) -> Mutex<Standing> {
        let mut stored = stored(generation);
        stored.keep_key(&crate::executor::tests::FakeTpmKey::new());
        Mutex::new(Standing::Owned(stored))
    }

    fn reason(result: Result<Signed, Failure>) -> String {
        result.unwrap_err().reason
    }

    #[test]
    fn a_digest_is_signed_with_the_key_of_the_callers_identity_and_no_other() {
        let (signing, count) = signing(true);
        let call = |generation| Sign { generation, digest: [7; 32] };
        assert_eq!(signing.sign(&in_the_tpm(3), &call(3)), Ok(Signed { signature: vec![7; 32] }));
        assert_eq!(reason(signing.sign(&in_the_tpm(3), &call(2))), ANOTHER_KEY);
        assert_eq!(reason(signing.sign(&Mutex::new(Standing::Owned(stored(3))), &call(3))), ANOTHER_KEY, "in software");
        assert_eq!(reason(signing.sign(&Mutex::new(Standing::New), &call(0))), "not_provisioned");
        let released = in_the_tpm(3).lock().unwrap().after_release("panorama_old_Thing_00000001", 3).unwrap().unwrap();
        assert_eq!(reason(signing.sign(&Mutex::new(released), &call(3))), "not_provisioned", "given up is given up");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_tpm_that_fails_is_said_and_does_not_use_up_the_places() {
        let (signing, _) = signing(false);
        let standing = in_the_tpm(1);
        for _ in 0..SIGNATURES_A_SECOND {
            let failure = signing.sign(&standing, &Sign { generation: 1, digest: [7; 32] }).unwrap_err();
            assert_eq!(failure.reason, "tpm");
            assert!(failure.message.contains("refuses Sign"));
        }
        assert_eq!(signing.rate.lock().unwrap().running, 0);
    }

    #[test]
    fn whoever_asks_too_often_costs_the_tpm_nothing() {
        let (signing, count) = signing(true);
        let standing = in_the_tpm(1);
        let call = Sign { generation: 1, digest: [7; 32] };
        let began = Instant::now();
        let refused: Vec<String> = (0..100).filter_map(|_| signing.sign(&standing, &call).err()).map(|f| f.reason).collect();
        // Of each second that this took on a busy machine.
        let most = SIGNATURES_A_SECOND * (1 + began.elapsed().as_secs() as usize);
        let signed = 100 - refused.len();
        assert!((SIGNATURES_A_SECOND..=most).contains(&signed), "{signed} of at most {most}");
        assert_eq!(count.load(Ordering::SeqCst), signed);
        assert!(refused.iter().all(|reason| reason == BUSY), "{refused:?}");
    }

    #[test]
    fn the_bound_is_of_any_second_and_of_those_under_way() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut rate = Rate::default();
        let begin = |rate: &mut Rate, time| {
            let may = rate.begin(at(time));
            if may {
                rate.end();
            }
            may
        };
        for time in [0, 300, 600, 900] {
            assert!(begin(&mut rate, time), "{time}");
        }
        assert!(!begin(&mut rate, 999));
        assert!(begin(&mut rate, 1000));
        assert!(!begin(&mut rate, 1299) && begin(&mut rate, 1300));
        // Those that do not end keep their places.
        let mut rate = Rate::default();
        assert_eq!((0..20).filter(|n| rate.begin(at(n * 2000))).count(), AT_ONCE);
        rate.end();
        assert!(rate.begin(at(100_000)) && !rate.begin(at(200_000)));
    }
}
