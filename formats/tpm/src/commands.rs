//! The commands (part 3), each with its parameters and its answer as types.

use crate::policy::Comparison;
use crate::structures::{ECDSA, NULL, RSASSA, SHA256, is_storage_key, pcr_selection, signing_key, storage_key};
use crate::wire::{Command, HandleExpected, Reader};
use crate::{
    Authorization, Digest, MAXIMUM, Name, NvPublic, P256Signature, PolicyKey, PolicySession, PolicySignature, ResponseCode,
    Tpm, TpmError,
};
use HandleExpected::{No, Yes};
use alloc::vec::Vec;
use zeroize::Zeroizing;

/// Code of PolicyNV.
pub const POLICY_NV: u32 = 0x149;
/// Code of PolicyAuthorize.
pub const POLICY_AUTHORIZE: u32 = 0x16a;
/// Code of PolicyCommandCode.
pub const POLICY_COMMAND_CODE: u32 = 0x16c;
/// Code of PolicyOR.
pub const POLICY_OR: u32 = 0x171;
/// Code of PolicyPCR.
pub const POLICY_PCR: u32 = 0x17f;
/// Code of PolicyNvWritten.
pub const POLICY_NV_WRITTEN: u32 = 0x18f;
/// Code of NV_Read.
pub const NV_READ: u32 = 0x14e;
/// Code of NV_Write.
pub const NV_WRITE: u32 = 0x137;
/// The most bytes that are read from or written to an index at once (`TPM_PT_NV_BUFFER_MAX` of every TPM is this or more).
pub const NV_BUFFER: usize = 512;

const RH_NULL: u32 = 0x4000_0007;
const RH_PLATFORM: u32 = 0x4000_000c;
/// An answer to GetCapability names at most so many properties.
const MAXIMUM_PROPERTIES: u32 = 512;
const PROPERTIES: u32 = 6;
const PERMANENT: u32 = 0x200;
const STARTUP_CLEAR: u32 = 0x201;

/// A hierarchy, or the authorisation against lockout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hierarchy {
    /// `TPM_RH_OWNER`: storage.
    Owner = 0x4000_0001,
    /// `TPM_RH_LOCKOUT`: ends a lockout, clears the TPM.
    Lockout = 0x4000_000a,
    /// `TPM_RH_ENDORSEMENT`: identity.
    Endorsement = 0x4000_000b,
}

/// The handle of a loaded object. It stays loaded until it is flushed or, over a resource manager, until the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedObject(pub u32);

/// The TPM's word that it verified a signature (`TPMT_TK_VERIFIED`). Of use to the same TPM, until it is cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTicket {
    tag: u16,
    hierarchy: u32,
    digest: Vec<u8>,
}

/// A key's two halves as Create gives them; the private one only that TPM can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedKey {
    /// `TPM2B_PRIVATE` without its length.
    pub private: Vec<u8>,
    /// `TPMT_PUBLIC`.
    pub public_area: Vec<u8>,
}

/// What the TPM says about its own state (`TPMA_PERMANENT` and `TPMA_STARTUP_CLEAR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TpmState {
    /// The owner's authorisation value is not empty.
    pub owner_auth_set: bool,
    /// The endorsement hierarchy's is not empty.
    pub endorsement_auth_set: bool,
    /// The lockout authorisation's is not empty.
    pub lockout_auth_set: bool,
    /// TPM2_Clear is disabled but for the firmware.
    pub clear_disabled: bool,
    /// Objects protected against dictionary attacks cannot be used now.
    pub in_lockout: bool,
    /// The owner's hierarchy can be used. While it cannot, its NV indices look as if they were not defined.
    pub owner_enabled: bool,
}

/// PCR_Read: values of the SHA-256 bank, in the order asked for; at most eight PCRs, in ascending order.
pub fn pcr_read<const N: usize>(tpm: &mut (impl Tpm + ?Sized), pcrs: [u8; N]) -> Result<[Digest; N], TpmError> {
    let selection = pcr_selection(pcrs);
    let response = Command::new("PCR_Read", 0x17e).bytes(&selection).run(tpm, No)?;
    let mut reader = response.reader();
    reader.u32()?;
    // A TPM whose firmware switched the bank off answers with an empty selection.
    let length = selection.len();
    if reader.rest.get(..length) != Some(&selection) {
        return Err(reader.malformed("it holds other PCRs than asked for; has the TPM a SHA-256 bank?"));
    }
    reader.take(length)?;
    if reader.u32()? as usize != N {
        return Err(reader.malformed("it holds another number of PCRs than asked for"));
    }
    let mut values = [[0; 32]; N];
    for value in &mut values {
        *value = reader.sized_array()?;
    }
    reader.end()?;
    Ok(values)
}

/// PCR_Extend: measures a digest into a PCR of the SHA-256 bank.
pub fn pcr_extend(tpm: &mut (impl Tpm + ?Sized), pcr: u8, digest: &Digest) -> Result<(), TpmError> {
    let command = Command::new("PCR_Extend", 0x182).u32(u32::from(pcr)).authorized(Authorization::Password(&[]));
    command.u32(1).u16(SHA256).bytes(digest).run(tpm, No)?.empty()
}

/// GetRandom: fills `bytes`, in several commands where the TPM gives less at once.
pub fn get_random(tpm: &mut (impl Tpm + ?Sized), bytes: &mut [u8]) -> Result<(), TpmError> {
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let wanted = rest.len().min(32);
        let response = Command::new("GetRandom", 0x17b).u16(wanted as u16).run(tpm, No)?;
        let mut reader = response.reader();
        let given = reader.sized()?;
        if given.is_empty() || given.len() > wanted {
            return Err(reader.malformed("it holds no random bytes, or more than asked for"));
        }
        reader.end()?;
        rest[..given.len()].copy_from_slice(given);
        at += given.len();
    }
    Ok(())
}

/// GetCapability of the TPM's permanent and start-up attributes.
pub fn state(tpm: &mut (impl Tpm + ?Sized)) -> Result<TpmState, TpmError> {
    let response = Command::new("GetCapability", 0x17a).u32(PROPERTIES).u32(PERMANENT).u32(2).run(tpm, No)?;
    let mut reader = response.reader();
    reader.u8()?;
    if reader.u32()? != PROPERTIES {
        return Err(reader.malformed("another capability than asked for"));
    }
    let count = reader.u32()?;
    if count > MAXIMUM_PROPERTIES {
        return Err(reader.malformed("too many properties"));
    }
    let (mut permanent, mut startup) = (None, None);
    for _ in 0..count {
        let (property, value) = (reader.u32()?, reader.u32()?);
        match property {
            PERMANENT => permanent = Some(value),
            STARTUP_CLEAR => startup = Some(value),
            _ => {}
        }
    }
    reader.end()?;
    let (Some(permanent), Some(startup)) = (permanent, startup) else {
        return Err(reader.malformed("the properties asked for are not there"));
    };
    let bit = |number: u32| permanent & 1 << number != 0;
    Ok(TpmState {
        owner_auth_set: bit(0),
        endorsement_auth_set: bit(1),
        lockout_auth_set: bit(2),
        clear_disabled: bit(8),
        in_lockout: bit(9),
        owner_enabled: startup & 2 != 0,
    })
}

/// FlushContext: ends a session or unloads an object.
pub fn flush(tpm: &mut (impl Tpm + ?Sized), handle: u32) -> Result<(), TpmError> {
    Command::new("FlushContext", 0x165).u32(handle).run(tpm, No)?.empty()
}

/// StartAuthSession of a policy, unsalted, unbound, SHA-256.
pub fn start_policy_session(tpm: &mut (impl Tpm + ?Sized)) -> Result<PolicySession, TpmError> {
    // The nonce keeps HMACs fresh; such a session has none.
    let command = Command::new("StartAuthSession", 0x176).u32(RH_NULL).u32(RH_NULL).sized(&[0; 16]).sized(&[]);
    let response = command.u8(1).u16(NULL).u16(SHA256).run(tpm, Yes)?;
    let mut reader = response.reader();
    reader.sized()?;
    reader.end()?;
    Ok(PolicySession(response.handle()))
}

/// PolicyPCR: the PCRs hold values with this digest (see [`pcr_digest`](crate::policy::pcr_digest)).
pub fn policy_pcr(
    tpm: &mut (impl Tpm + ?Sized),
    session: PolicySession,
    pcrs: &[u8],
    digest: &Digest,
) -> Result<(), TpmError> {
    let command = Command::new("PolicyPCR", POLICY_PCR).u32(session.0).sized(digest);
    command.bytes(&pcr_selection(pcrs.iter().copied())).run(tpm, No)?.empty()
}

/// PolicyNV: the start of an index that is read with its empty authorisation value compares so with the operand.
pub fn policy_nv(
    tpm: &mut (impl Tpm + ?Sized),
    session: PolicySession,
    index: u32,
    operand: &[u8],
    comparison: Comparison,
) -> Result<(), TpmError> {
    let command = Command::new("PolicyNV", POLICY_NV).u32(index).u32(index).u32(session.0);
    let command = command.authorized(Authorization::Password(&[])).sized(operand).u16(0).u16(comparison as u16);
    command.run(tpm, No)?.empty()
}

/// PolicyNvWritten: the index to be used was written before, or never.
pub fn policy_nv_written(tpm: &mut (impl Tpm + ?Sized), session: PolicySession, written: bool) -> Result<(), TpmError> {
    let command = Command::new("PolicyNvWritten", POLICY_NV_WRITTEN).u32(session.0);
    command.u8(u8::from(written)).run(tpm, No)?.empty()
}

/// PolicyOR: two to eight branches, of which the session fulfilled one.
pub fn policy_or(tpm: &mut (impl Tpm + ?Sized), session: PolicySession, branches: &[Digest]) -> Result<(), TpmError> {
    let mut command = Command::new("PolicyOR", POLICY_OR).u32(session.0).u32(branches.len() as u32);
    for branch in branches {
        command = command.sized(branch);
    }
    command.run(tpm, No)?.empty()
}

/// PolicyCommandCode: only for this command.
pub fn policy_command_code(tpm: &mut (impl Tpm + ?Sized), session: PolicySession, code: u32) -> Result<(), TpmError> {
    Command::new("PolicyCommandCode", POLICY_COMMAND_CODE).u32(session.0).u32(code).run(tpm, No)?.empty()
}

/// PolicyAuthorize: the session's policy is `approved`, which the key with this name signed for `policy_ref`.
pub fn policy_authorize(
    tpm: &mut (impl Tpm + ?Sized),
    session: PolicySession,
    approved: &Digest,
    policy_ref: &[u8],
    key: &Name,
    ticket: &VerifiedTicket,
) -> Result<(), TpmError> {
    let command = Command::new("PolicyAuthorize", POLICY_AUTHORIZE).u32(session.0);
    let command = command.sized(approved).sized(policy_ref).sized(key);
    command.u16(ticket.tag).u32(ticket.hierarchy).sized(&ticket.digest).run(tpm, No)?.empty()
}

/// PolicySecret of a hierarchy: succeeds when this is its authorisation value; nothing but the session changes.
///
/// # Errors
/// [`ResponseCode::BAD_AUTH`] when it is not.
pub fn policy_secret(
    tpm: &mut (impl Tpm + ?Sized),
    session: PolicySession,
    hierarchy: Hierarchy,
    authorization: Authorization<'_>,
) -> Result<(), TpmError> {
    let command = Command::new("PolicySecret", 0x151).u32(hierarchy as u32).u32(session.0).authorized(authorization);
    // No nonce, no digest of parameters, no reference, no expiration.
    let response = command.sized(&[]).sized(&[]).sized(&[]).u32(0).run(tpm, No)?;
    let mut reader = response.reader();
    reader.sized()?;
    reader.u16()?;
    reader.u32()?;
    reader.sized()?;
    reader.end()
}

/// PolicyGetDigest: the session's policy so far.
pub fn policy_get_digest(tpm: &mut (impl Tpm + ?Sized), session: PolicySession) -> Result<Digest, TpmError> {
    let response = Command::new("PolicyGetDigest", 0x189).u32(session.0).run(tpm, No)?;
    let mut reader = response.reader();
    let digest = reader.sized_array()?;
    reader.end()?;
    Ok(digest)
}

/// LoadExternal of the public key that signs policies. Under the owner's hierarchy: a ticket of the null hierarchy is none.
pub fn load_policy_key(tpm: &mut (impl Tpm + ?Sized), key: &PolicyKey) -> Result<LoadedObject, TpmError> {
    let command = Command::new("LoadExternal", 0x167).sized(&[]).sized(&key.public_area());
    let response = command.u32(Hierarchy::Owner as u32).run(tpm, Yes)?;
    let mut reader = response.reader();
    let name: Name = reader.sized_array()?;
    reader.end()?;
    if name != key.name() {
        return Err(reader.malformed("it has another name for the key"));
    }
    Ok(LoadedObject(response.handle()))
}

/// VerifySignature (RSASSA, SHA-256) over a digest.
pub fn verify_signature(
    tpm: &mut (impl Tpm + ?Sized),
    key: LoadedObject,
    digest: &Digest,
    signature: &PolicySignature,
) -> Result<VerifiedTicket, TpmError> {
    let command = Command::new("VerifySignature", 0x177).u32(key.0).sized(digest);
    let response = command.u16(RSASSA).u16(SHA256).sized(&signature.0).run(tpm, No)?;
    let mut reader = response.reader();
    let ticket = VerifiedTicket { tag: reader.u16()?, hierarchy: reader.u32()?, digest: reader.sized()?.to_vec() };
    reader.end()?;
    Ok(ticket)
}

/// NV_ReadPublic: nothing when the index is not defined, or cannot be seen (see [`TpmState::owner_enabled`]).
pub fn nv_read_public(tpm: &mut (impl Tpm + ?Sized), index: u32) -> Result<Option<NvPublic>, TpmError> {
    let response = match Command::new("NV_ReadPublic", 0x169).u32(index).run(tpm, No) {
        Err(error) if error.is(ResponseCode::HANDLE) => return Ok(None),
        other => other?,
    };
    let mut reader = response.reader();
    let mut inner = Reader { command: reader.command, rest: reader.sized()? };
    let (found, algorithm) = (inner.u32()?, inner.u16()?);
    let public = NvPublic { index: found, attributes: inner.u32()?, policy: inner.sized()?.to_vec(), size: inner.u16()? };
    inner.end()?;
    let name = reader.sized()?;
    reader.end()?;
    if found != index {
        return Err(reader.malformed("it describes another index"));
    }
    // Another name algorithm is another index than any of ours; that shows as a size that none has.
    if algorithm != SHA256 {
        return Ok(Some(NvPublic { policy: Vec::new(), size: u16::MAX, ..public }));
    }
    if name != public.name() {
        return Err(reader.malformed("the name is not that of the public area"));
    }
    Ok(Some(public))
}

/// NV_DefineSpace under the owner, with an empty authorisation value.
pub fn nv_define(tpm: &mut (impl Tpm + ?Sized), owner: Authorization<'_>, public: &NvPublic) -> Result<(), TpmError> {
    let command = Command::new("NV_DefineSpace", 0x12a).u32(Hierarchy::Owner as u32).authorized(owner);
    command.sized(&[]).sized(&public.bytes()).run(tpm, No)?.empty()
}

/// NV_UndefineSpace under the owner.
pub fn nv_undefine(tpm: &mut (impl Tpm + ?Sized), owner: Authorization<'_>, index: u32) -> Result<(), TpmError> {
    let command = Command::new("NV_UndefineSpace", 0x122).u32(Hierarchy::Owner as u32).u32(index);
    command.authorized(owner).run(tpm, No)?.empty()
}

/// NV_Read of the first `size` bytes (at most [`NV_BUFFER`]).
pub fn nv_read(
    tpm: &mut (impl Tpm + ?Sized),
    authorization: Authorization<'_>,
    index: u32,
    size: u16,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let command = Command::new("NV_Read", NV_READ).u32(index).u32(index).authorized(authorization);
    let response = command.u16(size).u16(0).run(tpm, No)?;
    let mut reader = response.reader();
    let bytes = reader.sized()?;
    reader.end()?;
    if bytes.len() != usize::from(size) {
        return Err(reader.malformed("another number of bytes than asked for"));
    }
    Ok(Zeroizing::new(bytes.to_vec()))
}

/// NV_Write at the start of an index (at most [`NV_BUFFER`] bytes). The TPM does it wholly or not at all.
pub fn nv_write(
    tpm: &mut (impl Tpm + ?Sized),
    authorization: Authorization<'_>,
    index: u32,
    bytes: &[u8],
) -> Result<(), TpmError> {
    let command = Command::new("NV_Write", NV_WRITE).u32(index).u32(index).authorized(authorization);
    command.sized(bytes).u16(0).run(tpm, No)?.empty()
}

/// NV_SetBits: sets the bits that are set here, clears none.
pub fn nv_set_bits(
    tpm: &mut (impl Tpm + ?Sized),
    authorization: Authorization<'_>,
    index: u32,
    bits: u64,
) -> Result<(), TpmError> {
    let command = Command::new("NV_SetBits", 0x135).u32(index).u32(index).authorized(authorization);
    command.u64(bits).run(tpm, No)?.empty()
}

/// HierarchyChangeAuth: a new authorisation value (at most 32 bytes).
pub fn hierarchy_change_auth(
    tpm: &mut (impl Tpm + ?Sized),
    hierarchy: Hierarchy,
    old: Authorization<'_>,
    new: &[u8],
) -> Result<(), TpmError> {
    let command = Command::new("HierarchyChangeAuth", 0x129).u32(hierarchy as u32).authorized(old);
    command.sized(new).run(tpm, No)?.empty()
}

/// ClearControl: disables TPM2_Clear under the lockout authorisation. Only the firmware enables it again.
pub fn disable_clear(tpm: &mut (impl Tpm + ?Sized), lockout: Authorization<'_>) -> Result<(), TpmError> {
    let command = Command::new("ClearControl", 0x127).u32(Hierarchy::Lockout as u32).authorized(lockout);
    command.u8(1).run(tpm, No)?.empty()
}

/// HierarchyControl: switches the platform's hierarchy off until the TPM is started anew, with its empty authorisation value.
///
/// # Errors
/// [`ResponseCode::BAD_AUTH`] where the firmware set one, [`ResponseCode::HIERARCHY`] where it did this itself.
pub fn disable_platform(tpm: &mut (impl Tpm + ?Sized)) -> Result<(), TpmError> {
    let command = Command::new("HierarchyControl", 0x121).u32(RH_PLATFORM).authorized(Authorization::Password(&[]));
    command.u32(RH_PLATFORM).u8(0).run(tpm, No)?.empty()
}

/// ClockRateAdjust by nothing: succeeds when this is the owner's authorisation, and changes nothing.
///
/// # Errors
/// [`ResponseCode::BAD_AUTH`] when it is not.
pub fn check_owner(tpm: &mut (impl Tpm + ?Sized), owner: Authorization<'_>) -> Result<(), TpmError> {
    let command = Command::new("ClockRateAdjust", 0x130).u32(Hierarchy::Owner as u32).authorized(owner);
    command.u8(0).run(tpm, No)?.empty()
}

/// ReadPublic: a loaded or persistent object's public area and name.
pub fn read_public(tpm: &mut (impl Tpm + ?Sized), object: u32) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
    let response = Command::new("ReadPublic", 0x173).u32(object).run(tpm, No)?;
    let mut reader = response.reader();
    let (public_area, name) = (reader.sized()?.to_vec(), reader.sized()?.to_vec());
    reader.sized()?;
    reader.end()?;
    Ok((public_area, name))
}

/// `TPM2B_SENSITIVE_CREATE`, the public area, no outside information, no creation PCRs.
fn create(command: Command, auth: &[u8], public_area: &[u8]) -> Command {
    // Lengths of at most 2 + 32 + 2; a longer one is refused by the TPM.
    let size = u16::try_from(auth.len() + 4).unwrap_or(u16::MAX);
    command.u16(size).sized(auth).sized(&[]).sized(public_area).sized(&[]).u32(0)
}

/// What Create and CreatePrimary say about the creation.
fn creation(reader: &mut Reader<'_>) -> Result<(), TpmError> {
    reader.sized()?;
    reader.sized()?;
    reader.u16()?;
    reader.u32()?;
    reader.sized()?;
    Ok(())
}

/// CreatePrimary of the key under which others are kept, the same one each time until the TPM is cleared. Must be flushed.
pub fn create_storage_key(
    tpm: &mut (impl Tpm + ?Sized),
    hierarchy: Hierarchy,
    authorization: Authorization<'_>,
) -> Result<LoadedObject, TpmError> {
    let command = Command::new("CreatePrimary", 0x131).u32(hierarchy as u32).authorized(authorization);
    let response = create(command, &[], &storage_key()).run(tpm, Yes)?;
    let mut reader = response.reader();
    reader.sized()?;
    creation(&mut reader)?;
    reader.sized()?;
    reader.end()?;
    Ok(LoadedObject(response.handle()))
}

/// EvictControl under the owner: makes a loaded object persistent at this handle, which must be free; or, given the
/// persistent object itself, removes it.
pub fn evict_control(
    tpm: &mut (impl Tpm + ?Sized),
    owner: Authorization<'_>,
    object: LoadedObject,
    persistent: u32,
) -> Result<(), TpmError> {
    let command = Command::new("EvictControl", 0x120).u32(Hierarchy::Owner as u32).u32(object.0).authorized(owner);
    command.u32(persistent).run(tpm, No)?.empty()
}

/// Makes the owner's storage key ([`create_storage_key`]) persistent at a handle, which must be free. Three commands;
/// leaves nothing loaded.
pub fn persist_storage_key(
    tpm: &mut (impl Tpm + ?Sized),
    owner: Authorization<'_>,
    persistent: u32,
) -> Result<(), TpmError> {
    let key = create_storage_key(tpm, Hierarchy::Owner, owner)?;
    let made = evict_control(tpm, owner, key, persistent);
    let flushed = flush(tpm, key.0);
    made.and(flushed)
}

/// ReadPublic of a persistent handle: whether a key with the attributes of [`create_storage_key`]'s is there; nothing when
/// the handle is free. Which hierarchy made it, and whether its authorisation value is empty, cannot be seen.
pub fn has_storage_key(tpm: &mut (impl Tpm + ?Sized), persistent: u32) -> Result<Option<bool>, TpmError> {
    match read_public(tpm, persistent) {
        Err(error) if error.is(ResponseCode::HANDLE) => Ok(None),
        read => read.map(|(public_area, _)| Some(is_storage_key(&public_area))),
    }
}

/// Create of a key that signs (ECDSA, P-256, SHA-256), under a storage key; `auth` is its authorisation value.
pub fn create_signing_key(tpm: &mut (impl Tpm + ?Sized), parent: LoadedObject, auth: &[u8]) -> Result<CreatedKey, TpmError> {
    let command = Command::new("Create", 0x153).u32(parent.0).authorized(Authorization::Password(&[]));
    let response = create(command, auth, &signing_key()).run(tpm, No)?;
    let mut reader = response.reader();
    let key = CreatedKey { private: reader.sized()?.to_vec(), public_area: reader.sized()?.to_vec() };
    creation(&mut reader)?;
    reader.end()?;
    Ok(key)
}

/// Load of a key that was created under this storage key. Must be flushed.
pub fn load(tpm: &mut (impl Tpm + ?Sized), parent: LoadedObject, key: &CreatedKey) -> Result<LoadedObject, TpmError> {
    let command = Command::new("Load", 0x157).u32(parent.0).authorized(Authorization::Password(&[]));
    let response = command.sized(&key.private).sized(&key.public_area).run(tpm, Yes)?;
    let mut reader = response.reader();
    reader.sized()?;
    reader.end()?;
    Ok(LoadedObject(response.handle()))
}

/// Sign (ECDSA, SHA-256) of a digest.
pub fn sign(
    tpm: &mut (impl Tpm + ?Sized),
    key: LoadedObject,
    authorization: Authorization<'_>,
    digest: &Digest,
) -> Result<P256Signature, TpmError> {
    let command = Command::new("Sign", 0x15d).u32(key.0).authorized(authorization).sized(digest);
    // The scheme, and an empty ticket: the key may sign digests that were not made inside.
    let response = command.u16(ECDSA).u16(SHA256).u16(0x8024).u32(RH_NULL).sized(&[]).run(tpm, No)?;
    let mut reader = response.reader();
    if (reader.u16()?, reader.u16()?) != (ECDSA, SHA256) {
        return Err(reader.malformed("another kind of signature"));
    }
    let signature = P256Signature { r: reader.sized_number()?, s: reader.sized_number()? };
    reader.end()?;
    Ok(signature)
}

// What is read at once fits an answer.
const _: () = assert!(NV_BUFFER < MAXIMUM);
