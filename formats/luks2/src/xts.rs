//! AES-256 in XTS mode (IEEE 1619-2018) with dm-crypt's `plain64` sector numbers.
//!
//! Written here and not taken from a crate: it is thirty lines over `aes`, held to IEEE's test vectors.

use crate::KEY_SIZE;
use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

type Block = aes::Block;

/// The data does not begin and end at a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data does not begin and end at a sector's border")]
pub struct Unaligned;

/// An expanded key. Its parts are wiped when dropped.
pub struct Xts {
    data: Aes256,
    tweak: Aes256,
}

#[derive(Clone, Copy)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl Xts {
    /// The first half of the key is for the data, the second for the tweak.
    pub fn new(key: &[u8; KEY_SIZE]) -> Xts {
        let (mut data, mut tweak) = (Array::default(), Array::default());
        data.copy_from_slice(&key[..KEY_SIZE / 2]);
        tweak.copy_from_slice(&key[KEY_SIZE / 2..]);
        let xts = Xts { data: Aes256::new(&data), tweak: Aes256::new(&tweak) };
        crate::secret::wipe(&mut data);
        crate::secret::wipe(&mut tweak);
        xts
    }

    /// Encrypts sectors of `sector` bytes in place. `offset`: where the first of them begins, bytes from the start of the
    /// segment (or key slot area).
    ///
    /// The tweak of each sector is its offset in units of 512 bytes, whatever its size: dm-crypt's `plain64` without
    /// `iv_large_sectors`, as LUKS2 uses it.
    ///
    /// # Errors
    /// [`Unaligned`]: `sector` is no multiple of 512, or `offset` or the length is no multiple of `sector`.
    pub fn encrypt(&self, offset: u64, sector: usize, data: &mut [u8]) -> Result<(), Unaligned> {
        self.run(Direction::Encrypt, offset, sector, data)
    }

    /// Decrypts in place; everything else as with [`encrypt`](Self::encrypt).
    ///
    /// # Errors
    /// As with [`encrypt`](Self::encrypt).
    pub fn decrypt(&self, offset: u64, sector: usize, data: &mut [u8]) -> Result<(), Unaligned> {
        self.run(Direction::Decrypt, offset, sector, data)
    }

    fn run(&self, direction: Direction, offset: u64, sector: usize, data: &mut [u8]) -> Result<(), Unaligned> {
        let whole = sector > 0 && sector.is_multiple_of(512);
        if !whole || !offset.is_multiple_of(sector as u64) || !data.len().is_multiple_of(sector) {
            return Err(Unaligned);
        }
        let mut tweaks = vec![Block::default(); sector / 16];
        for (index, sector_data) in data.chunks_exact_mut(sector).enumerate() {
            let number = u128::from((offset + (index * sector) as u64) / 512);
            self.unit(direction, number, &mut tweaks, sector_data);
        }
        Ok(())
    }

    /// One data unit of whole blocks; `tweaks` has room for one a block.
    fn unit(&self, direction: Direction, number: u128, tweaks: &mut [Block], data: &mut [u8]) {
        let mut first = Block::from(number.to_le_bytes());
        self.tweak.encrypt_block(&mut first);
        let mut tweak = u128::from_le_bytes(first.into());
        for place in tweaks.iter_mut() {
            *place = Block::from(tweak.to_le_bytes());
            // Multiplied by alpha in GF(2^128), whose polynomial is x^128 + x^7 + x^2 + x + 1.
            tweak = (tweak << 1) ^ if tweak >> 127 == 1 { 0x87 } else { 0 };
        }
        let (blocks, _) = Block::slice_as_chunks_mut(data);
        combine(blocks, tweaks);
        match direction {
            Direction::Encrypt => self.data.encrypt_blocks(blocks),
            Direction::Decrypt => self.data.decrypt_blocks(blocks),
        }
        combine(blocks, tweaks);
    }
}

impl std::fmt::Debug for Xts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Xts(hidden)")
    }
}

fn combine(blocks: &mut [Block], tweaks: &[Block]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        for (byte, with) in block.iter_mut().zip(tweak) {
            *byte ^= with;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IEEE 1619, annex B, vectors 10 and 11: XTS-AES-256, a data unit of 512 bytes, 00 01 … ff twice.
    #[test]
    fn the_vectors_of_ieee_1619() {
        let key = "2718281828459045235360287471352662497757247093699959574966967627\
                   3141592653589793238462643383279502884197169399375105820974944592";
        let xts = Xts::new(&hex::decode(key).unwrap().try_into().unwrap());
        let plain: Vec<u8> = (0..512).map(|byte| byte as u8).collect();
        let mut data = plain.clone();
        xts.encrypt(0xff * 512, 512, &mut data).unwrap();
        assert_eq!(hex::encode(&data), VECTOR_10);
        xts.decrypt(0xff * 512, 512, &mut data).unwrap();
        assert_eq!(data, plain);
        xts.encrypt(0xffff * 512, 512, &mut data).unwrap();
        assert!(hex::encode(&data).starts_with("77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11"));
    }

    #[test]
    fn large_sectors_count_in_units_of_512_bytes() {
        let xts = Xts::new(&std::array::from_fn(|at| at as u8));
        let mut both = vec![0x5a; 8192];
        xts.encrypt(4096, 4096, &mut both).unwrap();
        let mut alone = vec![0x5a; 4096];
        xts.encrypt(8192, 4096, &mut alone).unwrap();
        assert_eq!(both[4096..], alone);
        // The first 512 bytes of a large sector are a small one's of the same offset: the tweak is the same.
        let mut small = vec![0x5a; 512];
        xts.encrypt(8192, 512, &mut small).unwrap();
        assert_eq!(both[4096..4608], small);
    }

    #[test]
    fn what_is_not_a_whole_sector_is_refused() {
        let xts = Xts::new(&[1; KEY_SIZE]);
        for (offset, sector, length) in [(0, 0, 0), (0, 100, 100), (512, 4096, 4096), (0, 4096, 512), (1, 512, 512)] {
            assert_eq!(xts.encrypt(offset, sector, &mut vec![0; length]), Err(Unaligned));
        }
    }

    const VECTOR_10: &str = "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b\
        5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd\
        5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0\
        c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca\
        2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0\
        b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f\
        93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec\
        583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a\
        84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1\
        505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae\
        9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29\
        a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac\
        6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f\
        645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385\
        1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa\
        773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";
}
