//! Deleting many objects with one request.

use super::errors::S3Error;
use super::operation::Target;
use super::xml;
use crate::Api;
use crate::access::authorise;
use crate::access::evaluate::Question;
use crate::arn::Arn;
use crate::entry::Request;
use crate::xml::element;
use axum::response::Response;
use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use quick_xml::Reader;
use quick_xml::events::Event;

const MAX_KEYS: usize = 1000;

/// POST `?delete`: each key is allowed or denied by itself.
pub(super) async fn objects(api: &Api, request: Request, target: &Target) -> Result<Response, S3Error> {
    let (caller, headers) = (request.caller, request.parts.headers);
    let body = request.body.collect().await?;
    let given = headers.get("content-md5").and_then(|v| v.to_str().ok());
    if given.is_some_and(|md5| md5 != BASE64_STANDARD.encode(Md5::digest(&body))) {
        return Err(S3Error::bad_digest("Content-MD5"));
    }
    let wanted = parse(&body)?;
    let mut answer = String::new();
    for key in &wanted.keys {
        let question = Arn::object(&target.bucket, key).map(|arn| Question::new("s3:DeleteObject", arn));
        if authorise(api, &caller, question.as_slice()).await?.is_err() {
            let parts = element("Key", key) + &element("Code", "AccessDenied") + &element("Message", "Access Denied");
            answer += &format!("<Error>{parts}</Error>");
            continue;
        }
        api.fleet.store.delete_object(&target.bucket, key).await?;
        if !wanted.quiet {
            answer += &format!("<Deleted>{}</Deleted>", element("Key", key));
        }
    }
    Ok(xml(format!("<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{answer}</DeleteResult>")))
}

#[derive(Debug, Default, PartialEq)]
struct Wanted {
    keys: Vec<String>,
    quiet: bool,
}

/// `Delete`: keys, and whether the deleted ones are told of.
fn parse(body: &[u8]) -> Result<Wanted, S3Error> {
    let text = std::str::from_utf8(body).map_err(|_| S3Error::malformed())?;
    let mut reader = Reader::from_str(text);
    let mut wanted = Wanted::default();
    let mut element: Vec<u8> = Vec::new();
    let mut quiet = String::new();
    loop {
        match reader.read_event().map_err(|_| S3Error::malformed())? {
            Event::Start(start) => {
                element = start.local_name().as_ref().to_vec();
                match &element[..] {
                    b"Key" => wanted.keys.push(String::new()),
                    b"VersionId" => return Err(S3Error::not_implemented()),
                    // Conditions: what is deleted all the same is lost.
                    b"ETag" | b"LastModifiedTime" | b"Size" => return Err(S3Error::not_implemented()),
                    _ => {}
                }
                if wanted.keys.len() > MAX_KEYS {
                    return Err(S3Error::malformed());
                }
            }
            Event::End(_) => element.clear(),
            Event::Text(text) => {
                let text = text.decode().map_err(|_| S3Error::malformed())?;
                add(&mut wanted, &mut quiet, &element, &text);
            }
            Event::CData(text) => {
                let text = text.decode().map_err(|_| S3Error::malformed())?;
                add(&mut wanted, &mut quiet, &element, &text);
            }
            // Entities are events of their own.
            Event::GeneralRef(name) => {
                let character = match name.resolve_char_ref().map_err(|_| S3Error::malformed())? {
                    Some(character) => character,
                    None => match &*name.decode().map_err(|_| S3Error::malformed())? {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return Err(S3Error::malformed()),
                    },
                };
                add(&mut wanted, &mut quiet, &element, character.encode_utf8(&mut [0; 4]));
            }
            Event::DocType(_) => return Err(S3Error::malformed()),
            Event::Eof => break,
            _ => {}
        }
    }
    wanted.quiet = quiet.trim() == "true";
    if wanted.keys.is_empty() || wanted.keys.iter().any(|k| k.is_empty() || k.len() > 1024) {
        return Err(S3Error::malformed());
    }
    Ok(wanted)
}

fn add(wanted: &mut Wanted, quiet: &mut String, element: &[u8], text: &str) {
    match element {
        b"Key" => drop(wanted.keys.last_mut().map(|key| key.push_str(text))),
        b"Quiet" => quiet.push_str(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are() {
        let body = "<?xml version=\"1.0\"?><Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Object><Key>a &amp; b/&#228;&lt;1&gt;</Key></Object><Object><Key> x </Key></Object><Quiet>true</Quiet></Delete>";
        let wanted = parse(body.as_bytes()).unwrap();
        assert_eq!(wanted, Wanted { keys: vec!["a & b/ä<1>".into(), " x ".into()], quiet: true });
        let many = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(1001));
        for bad in [
            "",
            "<Delete/>",
            "<Delete><Object><Key></Key></Object></Delete>",
            "<a><b></a>",
            &many,
            "<!DOCTYPE a><a/>",
            "<Delete><Object><Key>&x;</Key></Object></Delete>",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:.60}");
        }
    }
}
