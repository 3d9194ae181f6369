//! OP-TEE under the keeper: the entry points that it calls, and the functions of the GlobalPlatform TEE Internal Core API 1.3
//! that the keeper calls (OP-TEE 4.10, `lib/libutee/include`).
//!
//! That library ends the trusted application for nearly every failure (`TEE_Panic`), as the specification wants it, also when its
//! storage fails. The keeper then stays dead until the machine starts again (`TA_FLAG_INSTANCE_KEEP_CRASHED`): closed.

use crate::{Keeper, Parameter, Platform, Sealing};
use belvedere_tee::Code;
use belvedere_tee::keeper::{Command, DIGEST, KEY_PAIR, Kept, Kind, NONCE, SIGNATURE, TAG, WRAPPED};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;

/// What the library's functions are about; null for none.
type Handle = *mut c_void;

/// `TEE_Param`.
#[repr(C)]
#[derive(Clone, Copy)]
union Param {
    memory: Memory,
    value: Value,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    a: u32,
    b: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Memory {
    start: *mut u8,
    size: usize,
}

/// `TEE_Attribute`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attribute {
    id: u32,
    content: Param,
}

unsafe extern "C" {
    fn TEE_Panic(code: u32) -> !;
    fn TEE_GenerateRandom(into: *mut u8, size: usize);

    fn TEE_OpenPersistentObject(storage: u32, name: *const u8, length: usize, flags: u32, object: *mut Handle) -> u32;
    fn TEE_CreatePersistentObject(
        storage: u32,
        name: *const u8,
        length: usize,
        flags: u32,
        attributes: Handle,
        data: *const u8,
        size: usize,
        object: *mut Handle,
    ) -> u32;
    fn TEE_ReadObjectData(object: Handle, into: *mut u8, size: usize, count: *mut usize) -> u32;
    fn TEE_CloseObject(object: Handle);

    fn TEE_AllocateTransientObject(kind: u32, bits: u32, object: *mut Handle) -> u32;
    fn TEE_FreeTransientObject(object: Handle);
    fn TEE_InitRefAttribute(attribute: *mut Attribute, id: u32, from: *const u8, size: usize);
    fn TEE_InitValueAttribute(attribute: *mut Attribute, id: u32, a: u32, b: u32);
    fn TEE_PopulateTransientObject(object: Handle, attributes: *const Attribute, count: u32) -> u32;
    fn TEE_GenerateKey(object: Handle, bits: u32, attributes: *const Attribute, count: u32) -> u32;
    fn TEE_GetObjectBufferAttribute(object: Handle, id: u32, into: *mut u8, size: *mut usize) -> u32;

    fn TEE_AllocateOperation(operation: *mut Handle, algorithm: u32, mode: u32, bits: u32) -> u32;
    fn TEE_FreeOperation(operation: Handle);
    fn TEE_SetOperationKey(operation: Handle, key: Handle) -> u32;
    fn TEE_AEInit(operation: Handle, nonce: *const u8, size: usize, tag_bits: u32, associated: usize, text: usize) -> u32;
    fn TEE_AEUpdateAAD(operation: Handle, associated: *const u8, size: usize);
    fn TEE_AEEncryptFinal(
        operation: Handle,
        from: *const u8,
        size: usize,
        to: *mut u8,
        to_size: *mut usize,
        tag: *mut u8,
        tag_size: *mut usize,
    ) -> u32;
    fn TEE_AEDecryptFinal(
        operation: Handle,
        from: *const u8,
        size: usize,
        to: *mut u8,
        to_size: *mut usize,
        tag: *const u8,
        tag_size: usize,
    ) -> u32;
    fn TEE_AsymmetricSignDigest(
        operation: Handle,
        parameters: *const Attribute,
        count: u32,
        digest: *const u8,
        digest_size: usize,
        signature: *mut u8,
        signature_size: *mut usize,
    ) -> u32;
}

/// `tee_api_defines.h`.
mod number {
    pub const STORAGE_PRIVATE: u32 = 1;
    pub const ACCESS_READ: u32 = 1;
    pub const OVERWRITE: u32 = 0x400;
    pub const TYPE_AES: u32 = 0xa000_0010;
    pub const TYPE_ECDSA_KEYPAIR: u32 = 0xa100_0041;
    pub const SECRET_VALUE: u32 = 0xc000_0000;
    pub const ECC_PRIVATE_VALUE: u32 = 0xc000_0341;
    pub const ECC_PUBLIC_VALUE_X: u32 = 0xd000_0141;
    pub const ECC_PUBLIC_VALUE_Y: u32 = 0xd000_0241;
    pub const ECC_CURVE: u32 = 0xf000_0441;
    pub const CURVE_NIST_P256: u32 = 3;
    pub const ALG_AES_GCM: u32 = 0x4000_0810;
    pub const ALG_ECDSA_SHA256: u32 = 0x7000_3042;
    pub const MODE_ENCRYPT: u32 = 0;
    pub const MODE_DECRYPT: u32 = 1;
    pub const MODE_SIGN: u32 = 2;
    pub const ERROR_MAC_INVALID: u32 = 0xffff_3071;
}

fn done(code: u32) -> Result<(), Code> {
    if code == Code::SUCCESS.0 { Ok(()) } else { Err(Code(code)) }
}

/// An object that ends with this.
struct Object(Handle);

impl Object {
    fn new(kind: u32) -> Result<Self, Code> {
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` is written to, and is ours when this succeeds.
        done(unsafe { TEE_AllocateTransientObject(kind, 256, &raw mut handle) })?;
        Ok(Self(handle))
    }

    /// With attributes.
    fn populate(self, attributes: &[Attribute]) -> Result<Self, Code> {
        // SAFETY: the object is ours; the attributes, and what they point to, live until the call returns.
        done(unsafe { TEE_PopulateTransientObject(self.0, attributes.as_ptr(), attributes.len() as u32) })?;
        Ok(self)
    }

    /// A number of at most 32 bytes, big-endian, zeros before it.
    fn number(&self, id: u32, into: &mut [u8]) -> Result<(), Code> {
        let mut bytes = [0; 32];
        let mut size = bytes.len();
        // SAFETY: as many bytes may be written as `size` says.
        done(unsafe { TEE_GetObjectBufferAttribute(self.0, id, bytes.as_mut_ptr(), &raw mut size) })?;
        let number = bytes.get(..size).ok_or(Code::GENERIC)?;
        let start = into.len().checked_sub(number.len()).ok_or(Code::GENERIC)?;
        into.fill(0);
        into[start..].copy_from_slice(number);
        Ok(())
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it is ours, and not used any more.
        unsafe { TEE_FreeTransientObject(self.0) }
    }
}

/// A stored object, open for reading.
struct Stored(Handle);

impl Drop for Stored {
    fn drop(&mut self) {
        // SAFETY: it is ours, and not used any more.
        unsafe { TEE_CloseObject(self.0) }
    }
}

/// An operation that ends with this.
struct Operation(Handle);

impl Operation {
    /// With a key of 256 bits.
    fn new(algorithm: u32, mode: u32, key: &Object) -> Result<Self, Code> {
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` is written to, and is ours when this succeeds.
        done(unsafe { TEE_AllocateOperation(&raw mut handle, algorithm, mode, 256) })?;
        let operation = Self(handle);
        // SAFETY: both are ours; the key is copied.
        done(unsafe { TEE_SetOperationKey(operation.0, key.0) })?;
        Ok(operation)
    }

    fn sealing(mode: u32, sealing: &Sealing<'_>) -> Result<Self, Code> {
        let key = Object::new(number::TYPE_AES)?.populate(&[bytes(number::SECRET_VALUE, sealing.key)])?;
        let operation = Self::new(number::ALG_AES_GCM, mode, &key)?;
        let (nonce, associated) = (sealing.nonce, sealing.associated);
        // SAFETY: the operation is ours, and what is pointed to lives until the calls return.
        unsafe {
            done(TEE_AEInit(operation.0, nonce.as_ptr(), NONCE, 8 * TAG as u32, associated.len(), KEY_PAIR))?;
            TEE_AEUpdateAAD(operation.0, associated.as_ptr(), associated.len());
        }
        Ok(operation)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: it is ours, and not used any more.
        unsafe { TEE_FreeOperation(self.0) }
    }
}

const NO_ATTRIBUTE: Attribute = Attribute { id: 0, content: Param { value: Value { a: 0, b: 0 } } };

/// An attribute of bytes, which must outlive it.
fn bytes(id: u32, bytes: &[u8]) -> Attribute {
    let mut attribute = NO_ATTRIBUTE;
    // SAFETY: only the attribute is written; it keeps the pointer.
    unsafe { TEE_InitRefAttribute(&raw mut attribute, id, bytes.as_ptr(), bytes.len()) };
    attribute
}

fn curve() -> Attribute {
    let mut attribute = NO_ATTRIBUTE;
    // SAFETY: only the attribute is written.
    unsafe { TEE_InitValueAttribute(&raw mut attribute, number::ECC_CURVE, number::CURVE_NIST_P256, 0) };
    attribute
}

struct OpTee;

impl Platform for OpTee {
    fn random(&mut self, into: &mut [u8]) -> Result<(), Code> {
        // SAFETY: as many bytes are written as there are. It ends the keeper rather than fail.
        unsafe { TEE_GenerateRandom(into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn load(&mut self, into: &mut [u8]) -> Result<Option<usize>, Code> {
        let (name, mut handle) = (Kept::NAME, ptr::null_mut());
        // SAFETY: the name is read, the handle written; it is ours when this succeeds.
        let code = unsafe {
            let (storage, flags) = (number::STORAGE_PRIVATE, number::ACCESS_READ);
            TEE_OpenPersistentObject(storage, name.as_ptr(), name.len(), flags, &raw mut handle)
        };
        if code == Code::NOT_FOUND.0 {
            return Ok(None);
        }
        done(code)?;
        let object = Stored(handle);
        let mut count = 0;
        // SAFETY: as many bytes may be written as there are.
        done(unsafe { TEE_ReadObjectData(object.0, into.as_mut_ptr(), into.len(), &raw mut count) })?;
        Ok(Some(count))
    }

    fn store(&mut self, object: &[u8; Kept::SIZE]) -> Result<(), Code> {
        let name = Kept::NAME;
        // SAFETY: name and object are read; no handle is asked for, and there are no attributes.
        done(unsafe {
            TEE_CreatePersistentObject(
                number::STORAGE_PRIVATE,
                name.as_ptr(),
                name.len(),
                number::OVERWRITE,
                ptr::null_mut(),
                object.as_ptr(),
                object.len(),
                ptr::null_mut(),
            )
        })
    }

    fn make_key(&mut self) -> Result<[u8; KEY_PAIR], Code> {
        let key = Object::new(number::TYPE_ECDSA_KEYPAIR)?;
        let curve = curve();
        // SAFETY: the object is ours, and the one attribute lives until the call returns.
        done(unsafe { TEE_GenerateKey(key.0, 256, &raw const curve, 1) })?;
        let mut pair = [0; KEY_PAIR];
        let parts = [number::ECC_PRIVATE_VALUE, number::ECC_PUBLIC_VALUE_X, number::ECC_PUBLIC_VALUE_Y];
        for (part, id) in pair.chunks_exact_mut(32).zip(parts) {
            key.number(id, part)?;
        }
        Ok(pair)
    }

    fn sign(&mut self, pair: &[u8; KEY_PAIR], digest: &[u8; DIGEST]) -> Result<[u8; SIGNATURE], Code> {
        let key = Object::new(number::TYPE_ECDSA_KEYPAIR)?.populate(&[
            bytes(number::ECC_PRIVATE_VALUE, &pair[..32]),
            bytes(number::ECC_PUBLIC_VALUE_X, &pair[32..64]),
            bytes(number::ECC_PUBLIC_VALUE_Y, &pair[64..]),
            curve(),
        ])?;
        let operation = Operation::new(number::ALG_ECDSA_SHA256, number::MODE_SIGN, &key)?;
        let mut signature = [0; SIGNATURE];
        let mut size = SIGNATURE;
        // SAFETY: the digest is read; as many bytes may be written as `size` says.
        done(unsafe {
            let (from, to) = (digest.as_ptr(), signature.as_mut_ptr());
            TEE_AsymmetricSignDigest(operation.0, ptr::null(), 0, from, DIGEST, to, &raw mut size)
        })?;
        if size == SIGNATURE { Ok(signature) } else { Err(Code::GENERIC) }
    }

    fn seal(&mut self, sealing: &Sealing<'_>, plain: &[u8; KEY_PAIR]) -> Result<([u8; KEY_PAIR], [u8; TAG]), Code> {
        let operation = Operation::sealing(number::MODE_ENCRYPT, sealing)?;
        let (mut sealed, mut tag) = ([0; KEY_PAIR], [0; TAG]);
        let (mut size, mut tag_size) = (KEY_PAIR, TAG);
        // SAFETY: the text is read; as many bytes may be written as the sizes say.
        done(unsafe {
            let (from, to, tag) = (plain.as_ptr(), sealed.as_mut_ptr(), tag.as_mut_ptr());
            TEE_AEEncryptFinal(operation.0, from, KEY_PAIR, to, &raw mut size, tag, &raw mut tag_size)
        })?;
        if (size, tag_size) == (KEY_PAIR, TAG) { Ok((sealed, tag)) } else { Err(Code::GENERIC) }
    }

    fn unseal(
        &mut self,
        sealing: &Sealing<'_>,
        sealed: &[u8; KEY_PAIR],
        tag: &[u8; TAG],
    ) -> Result<Option<[u8; KEY_PAIR]>, Code> {
        let operation = Operation::sealing(number::MODE_DECRYPT, sealing)?;
        let mut plain = [0; KEY_PAIR];
        let mut size = KEY_PAIR;
        // SAFETY: text and tag are read; as many bytes may be written as `size` says.
        let code = unsafe {
            let (from, to) = (sealed.as_ptr(), plain.as_mut_ptr());
            TEE_AEDecryptFinal(operation.0, from, KEY_PAIR, to, &raw mut size, tag.as_ptr(), TAG)
        };
        if code == number::ERROR_MAC_INVALID {
            return Ok(None);
        }
        done(code)?;
        if size == KEY_PAIR { Ok(Some(plain)) } else { Err(Code::GENERIC) }
    }
}

/// The keeper of this start.
struct Only(UnsafeCell<Keeper<OpTee>>);

// SAFETY: OP-TEE lets one thread at a time into an instance (`tee_ta_set_busy`), and there is one instance
// (`TA_FLAG_SINGLE_INSTANCE`). The entry points call nothing that calls them.
unsafe impl Sync for Only {}

static KEEPER: Only = Only(UnsafeCell::new(Keeper::new(OpTee)));

/// Bytes of the largest memory of a command.
const LARGEST: usize = WRAPPED;

#[unsafe(no_mangle)]
extern "C" fn TA_CreateEntryPoint() -> u32 {
    Code::SUCCESS.0
}

#[unsafe(no_mangle)]
extern "C" fn TA_DestroyEntryPoint() {}

/// A session is nothing: what is open or closed is so for all.
#[unsafe(no_mangle)]
extern "C" fn TA_OpenSessionEntryPoint(types: u32, _: *mut Param, _: *mut *mut c_void) -> u32 {
    if types == 0 { Code::SUCCESS.0 } else { Code::BAD_PARAMETERS.0 }
}

#[unsafe(no_mangle)]
extern "C" fn TA_CloseSessionEntryPoint(_: *mut c_void) {}

/// # Safety
/// `params` are four, of the kinds that `types` says; their memory is mapped. OP-TEE's promise.
#[unsafe(no_mangle)]
unsafe extern "C" fn TA_InvokeCommandEntryPoint(_: *mut c_void, number: u32, types: u32, params: *mut Param) -> u32 {
    #[cfg(feature = "crash")]
    if number == 0xdead {
        panic!();
    }
    // SAFETY: as promised to this function.
    match unsafe { invoke(number, types, &mut *params.cast()) } {
        Ok(()) => Code::SUCCESS.0,
        Err(code) => code.0,
    }
}

/// Copies what a command brings along, has it done, and copies back what comes of it. The normal world may change its memory at
/// any time: it is read once and written once, and nothing refers to it.
///
/// # Safety
/// The parameters are of the kinds that `types` says, and their memory is mapped.
unsafe fn invoke(number: u32, types: u32, params: &mut [Param; 4]) -> Result<(), Code> {
    let command = Command::from_number(number).filter(|command| command.types() == types);
    let kinds = command.ok_or(Code::BAD_PARAMETERS)?.parameters();
    let mut copies = [[0; LARGEST]; 4];
    let mut numbers = [(0, 0); 4];
    let mut parameters = [const { Parameter::None }; 4];
    let places = copies.iter_mut().zip(&mut numbers).zip(&mut parameters);
    for ((param, kind), ((copy, numbers), parameter)) in params.iter().zip(kinds).zip(places) {
        *parameter = match kind {
            Kind::None => Parameter::None,
            Kind::Numbers => {
                // SAFETY: it is of this kind.
                let Value { a, b } = unsafe { param.value };
                Parameter::Numbers(a, b)
            }
            Kind::NumbersBack => Parameter::NumbersBack(numbers),
            Kind::Read(size) | Kind::Written(size) => {
                // SAFETY: it is of this kind.
                let memory = unsafe { param.memory };
                let copy = copy.get_mut(..size).filter(|_| memory.size == size && !memory.start.is_null());
                let copy = copy.ok_or(Code::BAD_PARAMETERS)?;
                if matches!(kind, Kind::Read(_)) {
                    // SAFETY: mapped, as long as just compared, and not where our copies are.
                    unsafe { ptr::copy_nonoverlapping(memory.start.cast_const(), copy.as_mut_ptr(), size) };
                    Parameter::Read(copy)
                } else {
                    Parameter::Written(copy)
                }
            }
        };
    }
    // SAFETY: nobody else has it: see `Only`.
    unsafe { &mut *KEEPER.0.get() }.invoke(number, &mut parameters)?;
    for ((param, kind), (copy, numbers)) in params.iter_mut().zip(kinds).zip(copies.iter().zip(numbers)) {
        match kind {
            Kind::NumbersBack => param.value = Value { a: numbers.0, b: numbers.1 },
            Kind::Written(size) => {
                // SAFETY: mapped, of this kind and size, as compared above.
                unsafe { ptr::copy_nonoverlapping(copy.as_ptr(), param.memory.start, size) };
            }
            Kind::None | Kind::Numbers | Kind::Read(_) => {}
        }
    }
    Ok(())
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it ends the keeper, until the machine starts again.
    unsafe { TEE_Panic(Code::GENERIC.0) }
}
