//! CBOR, as the newest SDKs speak it (Smithy's RPC v2): maps, lists, text, numbers, times as tag 1. A reader for what
//! comes, bounded, and a writer for [`Output`].

use super::Output;
use minicbor::data::{Tag, Type};
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value};

const MAX_DEPTH: usize = 16;
/// Values of one document.
const MAX_VALUES: usize = 500_000;

/// A document as JSON; the error is for people. Numbers that JSON does not have become text, which no shape of a
/// number takes.
pub fn read(bytes: &[u8]) -> Result<Value, String> {
    if bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let mut reader = Reader { decoder: Decoder::new(bytes), values: 0 };
    let value = reader.value(0)?;
    match reader.decoder.position() == bytes.len() {
        true => Ok(value),
        false => Err("there is something behind the document".into()),
    }
}

/// What the values of a document take in memory at most, bytes: a short one has a byte.
pub fn weight(bytes: &[u8]) -> usize {
    bytes.len().min(MAX_VALUES) * 32
}

struct Reader<'a> {
    decoder: Decoder<'a>,
    values: usize,
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err("the document is too large or nested too deeply".into());
        }
        let wrong = |e: minicbor::decode::Error| e.to_string();
        Ok(match self.decoder.datatype().map_err(wrong)? {
            Type::Bool => self.decoder.bool().map_err(wrong)?.into(),
            Type::Null => {
                self.decoder.null().map_err(wrong)?;
                Value::Null
            }
            Type::Undefined => {
                self.decoder.undefined().map_err(wrong)?;
                Value::Null
            }
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.decoder.u64().map_err(wrong)?.into(),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => self.decoder.i64().map_err(wrong)?.into(),
            Type::F16 => number(self.decoder.f16().map_err(wrong)?.into()),
            Type::F32 => number(self.decoder.f32().map_err(wrong)?.into()),
            Type::F64 => number(self.decoder.f64().map_err(wrong)?),
            Type::String => self.decoder.str().map_err(wrong)?.into(),
            Type::StringIndef => {
                let parts: Result<Vec<&str>, _> = self.decoder.str_iter().map_err(wrong)?.collect();
                parts.map_err(wrong)?.concat().into()
            }
            Type::Tag => {
                self.decoder.tag().map_err(wrong)?;
                self.value(depth + 1)?
            }
            Type::Array | Type::ArrayIndef => {
                let length = self.decoder.array().map_err(wrong)?;
                let mut items = Vec::new();
                while self.more(length, items.len())? {
                    items.push(self.value(depth + 1)?);
                }
                items.into()
            }
            Type::Map | Type::MapIndef => {
                let length = self.decoder.map().map_err(wrong)?;
                let (mut map, mut count) = (Map::new(), 0);
                while self.more(length, count)? {
                    count += 1;
                    let Value::String(key) = self.value(depth + 1)? else { return Err("a key is not text".into()) };
                    let value = self.value(depth + 1)?;
                    map.insert(key, value);
                }
                map.into()
            }
            other => return Err(format!("{other} has no place in a request")),
        })
    }

    /// Whether another item follows; eats the mark that ends a list of unknown length.
    fn more(&mut self, length: Option<u64>, count: usize) -> Result<bool, String> {
        match length {
            Some(length) => Ok((count as u64) < length),
            None => {
                let end = self.decoder.datatype().map_err(|e| e.to_string())? == Type::Break;
                if end {
                    self.decoder.set_position(self.decoder.position() + 1);
                }
                Ok(!end)
            }
        }
    }
}

/// An output as CBOR.
pub fn write(output: &Output) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    // Writing into memory does not fail.
    let _ = put(&mut encoder, output);
    encoder.into_writer()
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn put(to: &mut Encoder<Vec<u8>>, output: &Output) -> Written {
    match output {
        Output::Text(text) => to.str(text)?.ok(),
        Output::Integer(number) => to.i64(*number)?.ok(),
        Output::Number(number) => to.f64(*number)?.ok(),
        Output::Boolean(truth) => to.bool(*truth)?.ok(),
        Output::Time(ms) => to.tag(Tag::new(1))?.f64(*ms as f64 / 1000.0)?.ok(),
        Output::List(items) => {
            to.array(items.len() as u64)?;
            items.iter().try_for_each(|item| put(to, item))
        }
        Output::Structure(members) => {
            to.map(members.len() as u64)?;
            members.iter().try_for_each(|(name, value)| {
                to.str(name)?;
                put(to, value)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_as_its_json() {
        let output = Output::structure()
            .with("Text", "ä")
            .with("Numbers", vec![1.5, -2.0])
            .with("At", Output::Time(1_500))
            .with("Inner", Output::structure().with("Flag", true).with("Count", -3));
        assert_eq!(read(&write(&output)).unwrap(), output.json());
    }

    #[test]
    fn lengths_may_be_unknown_and_documents_end() {
        // {_ "a": [_ 1, -1, null], "b": (_ "x", "y")}, examples of RFC 8949.
        let bytes = [&b"\xbf\x61a\x9f\x01\x20\xf6\xff\x61b\x7f\x61x\x61y\xff\xff"[..]].concat();
        assert_eq!(read(&bytes).unwrap(), json!({ "a": [1, -1, null], "b": "xy" }));
        assert!(read(&[&bytes[..], b"\x00"].concat()).is_err());
        for end in 1..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end}");
        }
        assert_eq!(read(b"").unwrap(), json!({}));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = [0x81_u8; 64];
        assert!(read(&deep).is_err());
        // A list that says it has 2^63 items.
        assert!(read(b"\x9b\x80\x00\x00\x00\x00\x00\x00\x00").is_err());
        assert!(read(b"\xa1\x01\x02").is_err(), "a number as key");
        assert!(read(b"\x41a").is_err(), "bytes");
        assert_eq!(read(b"\xa1\x61v\xf9\x7e\x00").unwrap(), json!({ "v": "NaN" }));
        let mut many = vec![0x9f];
        many.extend(std::iter::repeat_n(0, MAX_VALUES + 1));
        assert!(read(&many).is_err());
    }
}
