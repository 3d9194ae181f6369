//! The checksums that a client gives with a body. CRC-32 and SHA-256 are always made when an object is written; what
//! else is announced is made here while the body comes in.

use super::errors::S3Error;
use axum::http::HeaderMap;
use base64::{Engine, prelude::BASE64_STANDARD};
use belvedere_store::objects::Written;
use crc::{CRC_32_ISCSI, CRC_64_NVME, Crc, Digest, Table};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_NVME);

const PREFIX: &str = "x-amz-checksum-";

/// Something that is made while a body comes in.
enum Running {
    /// The writer makes it.
    Written(&'static str),
    Crc32c(Digest<'static, u32, Table<16>>),
    Crc64(Digest<'static, u64, Table<16>>),
    Sha1(Context),
}

impl Running {
    fn of(name: &str) -> Result<Running, S3Error> {
        match name {
            "x-amz-checksum-crc32" => Ok(Running::Written("x-amz-checksum-crc32")),
            "x-amz-checksum-sha256" => Ok(Running::Written("x-amz-checksum-sha256")),
            "x-amz-checksum-crc32c" => Ok(Running::Crc32c(CRC32C.digest())),
            "x-amz-checksum-crc64nvme" => Ok(Running::Crc64(CRC64.digest())),
            "x-amz-checksum-sha1" => Ok(Running::Sha1(Context::new(&SHA1_FOR_LEGACY_USE_ONLY))),
            other => Err(S3Error::invalid(format!("the checksum {other} is not supported by this service"))),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Running::Written(name) => name,
            Running::Crc32c(_) => "x-amz-checksum-crc32c",
            Running::Crc64(_) => "x-amz-checksum-crc64nvme",
            Running::Sha1(_) => "x-amz-checksum-sha1",
        }
    }

    fn end(self, written: &Written) -> String {
        match self {
            Running::Written("x-amz-checksum-crc32") => written.crc32.clone(),
            Running::Written(_) => BASE64_STANDARD.encode(hex::decode(&written.sha256).unwrap_or_default()),
            Running::Crc32c(digest) => BASE64_STANDARD.encode(digest.finalize().to_be_bytes()),
            Running::Crc64(digest) => BASE64_STANDARD.encode(digest.finalize().to_be_bytes()),
            Running::Sha1(context) => BASE64_STANDARD.encode(context.finish()),
        }
    }
}

/// The checksums that a request announces, in its headers or for behind its body.
pub(super) struct Checksums {
    running: Vec<Running>,
    headers: Vec<(String, String)>,
}

impl Checksums {
    /// Of a request's headers.
    pub fn announced(headers: &HeaderMap) -> Result<Checksums, S3Error> {
        let mut running: Vec<Running> = Vec::new();
        let mut given = Vec::new();
        for (name, value) in headers {
            let name = name.as_str();
            // These say something about checksums and are none.
            if !name.starts_with(PREFIX)
                || ["x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode"].contains(&name)
            {
                continue;
            }
            running.push(Running::of(name)?);
            given.push((name.to_owned(), value.to_str().unwrap_or("").to_owned()));
        }
        let trailers = headers.get_all("x-amz-trailer").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        for name in trailers.map(|n| n.trim().to_ascii_lowercase()).filter(|n| n.starts_with(PREFIX)) {
            if !running.iter().any(|r| r.name() == name) {
                running.push(Running::of(&name)?);
            }
        }
        if running.len() > 2 {
            return Err(S3Error::invalid("Expecting a single x-amz-checksum- header"));
        }
        Ok(Checksums { running, headers: given })
    }

    /// Takes a piece of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        for running in &mut self.running {
            match running {
                Running::Written(_) => {}
                Running::Crc32c(digest) => digest.update(bytes),
                Running::Crc64(digest) => digest.update(bytes),
                Running::Sha1(context) => context.update(bytes),
            }
        }
    }

    /// Compares all of them with what was given; the first one is what the answer tells. A checksum that was announced
    /// and did not come is as bad as a wrong one.
    pub fn check(self, written: &Written, trailers: &[(String, String)]) -> Result<Option<(&'static str, String)>, S3Error> {
        let mut first = None;
        for running in self.running {
            let name = running.name();
            let real = running.end(written);
            let mut given = self.headers.iter().chain(trailers).filter(|(n, _)| n == name).map(|(_, v)| v).peekable();
            if given.peek().is_none() || given.any(|v| *v != real) {
                return Err(S3Error::bad_digest(&name[PREFIX.len()..].to_ascii_uppercase()));
            }
            first.get_or_insert((name, real));
        }
        if let Some((name, _)) =
            trailers.iter().find(|(n, _)| n.starts_with(PREFIX) && first.as_ref().is_none_or(|(f, _)| f != n))
        {
            return Err(S3Error::invalid(format!("the trailer {name} was not announced")));
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_checksum_is_checked_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let store = belvedere_store::Store::create(folder.path()).await.unwrap();
        let mut writer = store.object_writer().await.unwrap();
        writer.write(b"123456789").await.unwrap();
        let written = writer.finish().await.unwrap();
        let right = |value: &[u8]| BASE64_STANDARD.encode(value);
        // The check values of the CRC catalogue; SHA-1 as sha1sum says.
        for (name, value) in [
            ("x-amz-checksum-crc32", right(&0xCBF4_3926_u32.to_be_bytes())),
            ("x-amz-checksum-crc32c", right(&0xE306_9283_u32.to_be_bytes())),
            ("x-amz-checksum-crc64nvme", right(&0xAE8B_1486_0A79_9888_u64.to_be_bytes())),
            ("x-amz-checksum-sha1", right(&hex::decode("f7c3bc1d808e04732adf679965ccc34ca7ae3441").unwrap())),
            (
                "x-amz-checksum-sha256",
                right(&hex::decode("15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225").unwrap()),
            ),
        ] {
            let check = |headers: &[(&str, &str)], trailers: &[(&str, &str)]| {
                let mut map = HeaderMap::new();
                for (n, v) in headers {
                    map.insert(axum::http::HeaderName::try_from(*n).unwrap(), v.parse().unwrap());
                }
                let mut checksums = Checksums::announced(&map)?;
                checksums.update(b"1234");
                checksums.update(b"56789");
                let trailers: Vec<(String, String)> = trailers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
                checksums.check(&written, &trailers)
            };
            assert_eq!(check(&[(name, &value)], &[]).unwrap(), Some((name, value.clone())));
            assert_eq!(check(&[("x-amz-trailer", name)], &[(name, &value)]).unwrap(), Some((name, value.clone())));
            assert!(check(&[(name, "AAAAAA==")], &[]).is_err());
            assert!(check(&[("x-amz-trailer", name)], &[(name, "AAAAAA==")]).is_err());
            assert!(check(&[("x-amz-trailer", name)], &[]).is_err(), "announced, and not there");
            assert!(check(&[], &[(name, &value)]).is_err(), "there, and not announced");
        }
        let mut unknown = HeaderMap::new();
        unknown.insert("x-amz-checksum-xxhash3", "AAAA".parse().unwrap());
        assert!(Checksums::announced(&unknown).is_err());
    }
}
