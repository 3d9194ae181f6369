//! AWS's query protocol: `A.member.1.B=c` becomes the JSON value that the operation's shape describes.

use crate::model::{Member, Shape};
use crate::sigv4::canonical::query_pairs;
use crate::sigv4::clock::parse_iso8601;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// Most parameters of a request.
const MAX_PARAMETERS: usize = 100_000;
/// Most dots in a parameter's name.
const MAX_DEPTH: usize = 16;

/// A request's parameters.
#[derive(Debug, Default)]
struct Node {
    value: Option<String>,
    members: BTreeMap<String, Node>,
}

/// A request of the query protocol.
#[derive(Debug)]
pub struct Query {
    root: Node,
}

impl Query {
    /// Reads a form; the error is for people.
    pub fn parse(form: &str) -> Result<Query, String> {
        let pairs = query_pairs(form);
        if pairs.len() > MAX_PARAMETERS {
            return Err(format!("a request has at most {MAX_PARAMETERS} parameters"));
        }
        let mut root = Node::default();
        for (name, value) in pairs {
            let text = |bytes| String::from_utf8(bytes).map_err(|_| "a parameter is not UTF-8".to_owned());
            let (name, value) = (text(name)?, text(value)?);
            if name.split('.').count() > MAX_DEPTH {
                return Err("a parameter is nested too deeply".into());
            }
            let node = name.split('.').fold(&mut root, |node, part| node.members.entry(part.to_owned()).or_default());
            node.value = Some(value);
        }
        Ok(Query { root })
    }

    /// `Action`.
    pub fn action(&self) -> &str {
        self.root.members.get("Action").and_then(|n| n.value.as_deref()).unwrap_or("")
    }

    /// The input that a shape describes. What does not fit stays text, and is found when the input is checked.
    pub fn input(&self, members: &[Member]) -> Map<String, Value> {
        structure(members, &self.root)
    }
}

fn structure(members: &[Member], node: &Node) -> Map<String, Value> {
    let mut map = Map::new();
    for member in members {
        if let Some(value) = node.members.get(member.name).and_then(|inner| value(&member.shape, inner)) {
            map.insert(member.name.to_owned(), value);
        }
    }
    map
}

fn value(shape: &Shape, node: &Node) -> Option<Value> {
    match shape.bare() {
        Shape::Structure(members) => Some(Value::Object(structure(members, node))),
        Shape::List(inner, ..) => {
            let items = node.members.get("member").or_else(|| node.members.get("entry")).unwrap_or(node);
            let mut numbered: Vec<(u64, &Node)> =
                items.members.iter().filter_map(|(number, item)| Some((number.parse().ok()?, item))).collect();
            numbered.sort_by_key(|(number, _)| *number);
            Some(numbered.into_iter().filter_map(|(_, item)| value(inner, item)).collect())
        }
        shape => node.value.as_deref().map(|text| leaf(shape, text)),
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

    #[test]
    fn dotted_names_become_the_input_that_the_shape_describes() {
        let form = "Action=Do&Version=1&Name=a%20b&At=2013-05-24T00%3A00%3A00Z&Value=1.5&Flag=true&Items.member.10.Key=z\
                    &Items.member.2.Key=y&Items.member.2.Numbers.member.1=7&Other=x";
        let query = Query::parse(form).unwrap();
        assert_eq!(query.action(), "Do");
        let input = query.input(MEMBERS);
        assert_eq!(
            Value::Object(input.clone()),
            json!({ "Name": "a b", "At": 1369353600.0, "Value": 1.5, "Flag": true,
                    "Items": [{ "Key": "y", "Numbers": [7] }, { "Key": "z" }] })
        );
        assert!(check(MEMBERS, &input).is_empty());
    }

    #[test]
    fn what_does_not_fit_its_shape_is_a_fault_and_not_lost() {
        for form in ["Name=a&Value=x", "Name=a&Value=NaN", "Name=a&At=yesterday", "Name=a&Flag=maybe", "Items.member.1.Key=a"] {
            let input = Query::parse(form).unwrap().input(MEMBERS);
            assert_eq!(check(MEMBERS, &input).len(), 1, "{form}");
        }
    }

    #[test]
    fn parameters_are_bounded() {
        assert!(Query::parse(&format!("a{}=1", ".a".repeat(MAX_DEPTH))).is_err());
        assert!(Query::parse(&"a=1&".repeat(MAX_PARAMETERS + 1)).is_err());
        assert!(Query::parse("a=%ff").is_err());
        assert_eq!(Query::parse("").unwrap().action(), "");
    }
}
