//! A template's text as a value. YAML or JSON; CloudFormation's short forms (`!Ref x`) become their long ones
//! (`{"Ref": "x"}`). Pure and bounded. Aliases are refused, as CloudFormation refuses them: a small document cannot
//! become a large one.

use belvedere_manifest::unambiguous_json;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Largest template, bytes (CloudFormation's limit for one in a request).
pub const MAX_TEMPLATE: usize = 51_200;
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 20_000;

/// Reads a template; the error is for people.
pub fn parse(text: &str) -> Result<Value, String> {
    if text.len() > MAX_TEMPLATE {
        return Err(format!("Template may not exceed {MAX_TEMPLATE} bytes in size."));
    }
    if text.trim_start().starts_with('{') {
        return unambiguous_json(text).map_err(|e| format!("Template format error: JSON not well-formed. ({e})"));
    }
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0 };
    reader.document().map_err(|e| format!("Template format error: YAML not well-formed. ({e})"))
}

struct Reader<'input> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    nodes: usize,
}

impl<'input> Reader<'input> {
    fn next(&mut self) -> Result<Event<'input>, String> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(e)) => Err(e.to_string()),
            None => Err("it ends early".into()),
        }
    }

    fn document(&mut self) -> Result<Value, String> {
        let mut value = None;
        loop {
            match self.next()? {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if value.is_some() => return Err("there must be one document".into()),
                Event::DocumentStart(_) => {
                    let first = self.next()?;
                    value = Some(self.value(first, 0)?);
                }
                Event::StreamEnd => return value.ok_or_else(|| "it is empty".into()),
                _ => return Err("there must be one document".into()),
            }
        }
    }

    fn value(&mut self, event: Event<'input>, depth: usize) -> Result<Value, String> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err("it is too large or nested too deeply".into());
        }
        match event {
            Event::Scalar(text, style, _, tag) => match tag {
                Some(tag) if !tag.is_yaml_core_schema() => long_form(&tag, Value::String(text.into_owned())),
                Some(_) => Ok(Value::String(text.into_owned())),
                None => Ok(scalar(text, style)),
            },
            Event::SequenceStart(_, tag) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break,
                        item => items.push(self.value(item, depth + 1)?),
                    }
                }
                tagged(tag, Value::Array(items))
            }
            Event::MappingStart(_, tag) => {
                let mut map = Map::new();
                loop {
                    let key = match self.next()? {
                        Event::MappingEnd => break,
                        Event::Scalar(key, _, _, None) => key.into_owned(),
                        _ => return Err("a key must be plain text".into()),
                    };
                    let value = self.next()?;
                    let value = self.value(value, depth + 1)?;
                    if map.insert(key.clone(), value).is_some() {
                        return Err(format!("the key {key} is there twice"));
                    }
                }
                tagged(tag, Value::Object(map))
            }
            Event::Alias(_) => Err("aliases are not supported".into()),
            _ => Err("a value is missing".into()),
        }
    }
}

fn tagged(tag: Option<Cow<'_, Tag>>, value: Value) -> Result<Value, String> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => long_form(&tag, value),
        _ => Ok(value),
    }
}

/// `!Ref`, `!GetAtt`, ….
fn long_form(tag: &Tag, value: Value) -> Result<Value, String> {
    if tag.handle != "!" {
        return Err(format!("the tag {tag} is not known"));
    }
    let (name, value) = match (tag.suffix.as_str(), value) {
        ("Ref", value) => ("Ref".to_owned(), value),
        ("GetAtt", Value::String(text)) => {
            let (resource, attribute) = text.split_once('.').ok_or("!GetAtt must be resource.attribute")?;
            ("Fn::GetAtt".to_owned(), serde_json::json!([resource, attribute]))
        }
        (suffix, value) if !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            (format!("Fn::{suffix}"), value)
        }
        _ => return Err(format!("the tag {tag} is not known")),
    };
    Ok(Value::Object(Map::from_iter([(name, value)])))
}

/// Plain text that reads as truth, nothing or a whole number is that; everything else stays text (dates and long
/// account numbers with leading zeros above all).
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.into_owned());
    }
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        number => match number.parse::<i64>() {
            Ok(n) if n.to_string() == number => n.into(),
            _ => Value::String(text.into_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_that_is_there_twice_is_refused_in_both_languages() {
        for text in ["a: 1\na: 2\n", r#"{"a": 1, "a": 2}"#, r#"{"a": {"Condition": {"b": 1}, "Condition": {}}}"#] {
            assert!(parse(text).unwrap_err().contains("there twice"), "{text}");
        }
    }

    #[test]
    fn short_forms_become_long_ones() {
        let text = "a: !Ref x\nb: !GetAtt r.Arn\nc: !Sub '${x}-1'\nd: !Join [ '-', [ a, !Ref x ] ]\n\
                    e: 2012-10-17\nf: 0123\ng: 12\nh: true\ni: 'true'\nj:\n- k: ~\n- |\n  two\n  lines\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({
                "a": {"Ref": "x"}, "b": {"Fn::GetAtt": ["r", "Arn"]}, "c": {"Fn::Sub": "${x}-1"},
                "d": {"Fn::Join": ["-", ["a", {"Ref": "x"}]]}, "e": "2012-10-17", "f": "0123", "g": 12, "h": true, "i": "true",
                "j": [{"k": null}, "two\nlines\n"],
            })
        );
        assert_eq!(parse(r#" {"a": {"Ref": "x"}}"#).unwrap(), json!({"a": {"Ref": "x"}}));
    }

    #[test]
    fn what_is_not_a_template_is_refused() {
        let bomb = format!("a: &a [x]\nb: [{}]", "*a,".repeat(10));
        let deep = format!("{}x{}", "[".repeat(100), "]".repeat(100));
        for bad in [
            "",
            "a: [",
            "{",
            "a: 1\na: 2",
            "---\na: 1\n---\nb: 2",
            &bomb,
            &deep,
            "a: !GetAtt x",
            "a: !<tag:x> y",
            "? [a]\n: b",
            &"x".repeat(60_000),
        ] {
            assert!(parse(bad).is_err(), "{bad:.60}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[a-z:!&*\\-\\[\\]{}#'\"|>\n ,?]{0,120}") {
            let _ = parse(&text);
        }
    }
}
