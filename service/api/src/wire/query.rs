//! The input that a shape describes, from the fields of a form: `A.member.1.B=c` becomes JSON.

use crate::model::{Member, Shape};
use crate::query::Form;
use crate::sigv4::clock::parse_iso8601;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// Most dots in a field's name.
const MAX_DEPTH: usize = 16;

/// Fields by the parts of their names.
#[derive(Debug, Default)]
struct Node<'a> {
    value: Option<&'a str>,
    members: BTreeMap<&'a str, Node<'a>>,
}

/// The input that a shape describes; an error is for people. What does not fit stays text, and is found when the input is
/// checked.
pub fn input(form: &Form, members: &[Member]) -> Result<Map<String, Value>, String> {
    let mut root = Node::default();
    for (name, value) in form.fields() {
        if name.split('.').count() > MAX_DEPTH {
            return Err("a parameter is nested too deeply".into());
        }
        let node = name.split('.').fold(&mut root, |node, part| node.members.entry(part).or_default());
        node.value = Some(value);
    }
    Ok(structure(members, &root))
}

fn structure(members: &[Member], node: &Node<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    for member in members {
        if let Some(value) = node.members.get(member.name).and_then(|inner| value(&member.shape, inner)) {
            map.insert(member.name.to_owned(), value);
        }
    }
    map
}

fn value(shape: &Shape, node: &Node<'_>) -> Option<Value> {
    match shape.bare() {
        Shape::Structure(members) => Some(Value::Object(structure(members, node))),
        Shape::List(inner, ..) => {
            let items = node.members.get("member").or_else(|| node.members.get("entry")).unwrap_or(node);
            let mut numbered: Vec<(u64, &Node<'_>)> =
                items.members.iter().filter_map(|(number, item)| Some((number.parse().ok()?, item))).collect();
            numbered.sort_by_key(|(number, _)| *number);
            Some(numbered.into_iter().filter_map(|(_, item)| value(inner, item)).collect())
        }
        shape => node.value.map(|text| leaf(shape, text)),
    }
}

fn leaf(shape: &Shape, text: &str) -> Value {
    let typed = match shape {
        Shape::Integer(..) => text.parse::<i64>().ok().map(Value::from),
        Shape::Boolean => text.to_ascii_lowercase().parse::<bool>().ok().map(Value::from),
        Shape::Double => text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number),
        Shape::Timestamp => parse_iso8601(text).and_then(|ms| Number::from_f64(ms as f64 / 1000.0)).map(Value::Number),
        _ => None,
    };
    typed.unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Text, check};
    use serde_json::json;

    static WORD: Text = Text { min: 1, max: 9, pattern: None };
    static MEMBERS: &[Member] = &[
        Member::required("Name", Shape::Text(&WORD)),
        Member::optional("At", Shape::Timestamp),
        Member::optional("Value", Shape::Double),
        Member::optional("Flag", Shape::Boolean),
        Member::optional(
            "Items",
            Shape::List(
                &Shape::Structure(&[
                    Member::required("Key", Shape::Text(&WORD)),
                    Member::optional("Numbers", Shape::List(&Shape::Integer(0, 99), 0, 9)),
                ]),
                0,
                99,
            ),
        ),
    ];

    fn of(form: &str) -> Result<Map<String, Value>, String> {
        let parts = axum::http::Request::builder().uri("/").body(()).unwrap().into_parts().0;
        input(&Form::of(&parts, form.as_bytes()).unwrap(), MEMBERS)
    }

    #[test]
    fn dotted_names_become_the_input_that_the_shape_describes() {
        let form = "Action=Do&Version=1&Name=a%20b&At=2013-05-24T00%3A00%3A00Z&Value=1.5&Flag=true&Items.member.10.Key=z\
                    &Items.member.2.Key=y&Items.member.2.Numbers.member.1=7&Other=x";
        let input = of(form).unwrap();
        assert_eq!(
            Value::Object(input.clone()),
            json!({ "Name": "a b", "At": 1369353600.0, "Value": 1.5, "Flag": true,
                    "Items": [{ "Key": "y", "Numbers": [7] }, { "Key": "z" }] })
        );
        assert!(check(MEMBERS, &input).is_empty());
    }

    #[test]
    fn what_does_not_fit_its_shape_is_a_fault_and_not_lost() {
        for form in
            ["Name=a&Value=x", "Name=a&Value=NaN", "Name=a&At=yesterday", "Name=a&Flag=maybe", "Items.member.1.Key=a"]
        {
            assert_eq!(check(MEMBERS, &of(form).unwrap()).len(), 1, "{form}");
        }
    }

    #[test]
    fn names_are_bounded() {
        assert!(of(&format!("a{}=1", ".a".repeat(MAX_DEPTH - 1))).is_ok());
        assert!(of(&format!("a{}=1", ".a".repeat(MAX_DEPTH))).is_err());
    }
}
