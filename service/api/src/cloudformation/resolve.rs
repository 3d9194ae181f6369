//! What a template's functions mean: `Ref`, `GetAtt`, `Sub`, `Join`, `Select`, `Split`. Pure.

use super::template::{Template, plain};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const MAX_DEPTH: usize = 32;
/// Longest text that functions may make.
const MAX_TEXT: usize = 65_536;

/// What functions can see.
#[derive(Clone)]
pub struct Scope<'a> {
    /// Values of parameters and of `AWS::…`.
    pub values: BTreeMap<String, String>,
    /// Parameters that are lists.
    pub lists: BTreeSet<String>,
    /// `Ref` of every resource.
    pub references: &'a BTreeMap<String, String>,
    /// `GetAtt` of every resource.
    pub attributes: &'a BTreeMap<String, BTreeMap<String, String>>,
}

impl Scope<'_> {
    /// A value with all its functions replaced by what they mean.
    pub fn resolve(&self, value: &Value) -> Result<Value, String> {
        self.at(value, 0)
    }

    fn at(&self, value: &Value, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("functions are nested too deeply".into());
        }
        match value {
            Value::Array(items) => {
                let items: Result<Vec<Value>, String> = items.iter().map(|v| self.at(v, depth + 1)).collect();
                Ok(Value::Array(items?.into_iter().filter(|v| !v.is_null()).collect()))
            }
            Value::Object(map) => match function(map) {
                Some((name, argument)) => self.call(name, argument, depth + 1),
                None => {
                    let mut all = Map::new();
                    for (key, value) in map {
                        let value = self.at(value, depth + 1)?;
                        if !value.is_null() {
                            all.insert(key.clone(), value);
                        }
                    }
                    Ok(Value::Object(all))
                }
            },
            other => Ok(other.clone()),
        }
    }

    fn call(&self, name: &str, argument: &Value, depth: usize) -> Result<Value, String> {
        match name {
            "Ref" => match argument.as_str() {
                Some("AWS::NoValue") => Ok(Value::Null),
                Some(name) if self.lists.contains(name) => {
                    let items = self.reference(name)?;
                    Ok(items.split(',').map(|i| Value::from(i.trim())).collect())
                }
                Some(name) => self.reference(name).map(Value::from),
                None => Err("Ref must name something".into()),
            },
            "Fn::GetAtt" => {
                let (resource, attribute) = pair(argument).ok_or("Fn::GetAtt must be [resource, attribute]")?;
                self.attribute(&resource, &attribute).map(Value::from)
            }
            "Fn::Sub" => self.substitute(argument, depth).map(Value::from),
            "Fn::Join" => match argument.as_array().map(Vec::as_slice) {
                Some([delimiter, list]) => {
                    let delimiter = plain(delimiter).ok_or("Fn::Join: the delimiter must be text")?;
                    let list = self.texts(list, depth, "Fn::Join")?;
                    bounded(list.join(&delimiter)).map(Value::from)
                }
                _ => Err("Fn::Join must be [delimiter, [value, …]]".into()),
            },
            "Fn::Select" => match argument.as_array().map(Vec::as_slice) {
                Some([index, list]) => {
                    let index = plain(&self.at(index, depth)?)
                        .and_then(|t| t.parse::<usize>().ok())
                        .ok_or("Fn::Select: the index must be a number")?;
                    let list = self.texts(list, depth, "Fn::Select")?;
                    list.into_iter()
                        .nth(index)
                        .map(Value::from)
                        .ok_or_else(|| "Fn::Select: there are not so many values".into())
                }
                _ => Err("Fn::Select must be [index, [value, …]]".into()),
            },
            "Fn::Split" => match argument.as_array().map(Vec::as_slice) {
                Some([delimiter, text]) => {
                    let delimiter =
                        plain(delimiter).filter(|d| !d.is_empty()).ok_or("Fn::Split: the delimiter must be text")?;
                    let text = plain(&self.at(text, depth)?).ok_or("Fn::Split: the value must be text")?;
                    Ok(text.split(&delimiter).map(Value::from).collect())
                }
                _ => Err("Fn::Split must be [delimiter, value]".into()),
            },
            other => Err(format!("the function {other} is not supported by this service")),
        }
    }

    fn texts(&self, list: &Value, depth: usize, name: &str) -> Result<Vec<String>, String> {
        match self.at(list, depth)? {
            Value::Array(items) => {
                items.iter().map(|v| plain(v).ok_or_else(|| format!("{name}: values must be text"))).collect()
            }
            _ => Err(format!("{name}: there must be a list of values")),
        }
    }

    fn reference(&self, name: &str) -> Result<String, String> {
        let found = self.values.get(name).or_else(|| self.references.get(name));
        found.cloned().ok_or_else(|| format!("Template error: unresolved reference {name}"))
    }

    fn attribute(&self, resource: &str, attribute: &str) -> Result<String, String> {
        let attributes = self
            .attributes
            .get(resource)
            .ok_or_else(|| format!("Template error: instance of Fn::GetAtt references undefined resource {resource}"))?;
        attributes.get(attribute).cloned().ok_or_else(|| {
            format!("Template error: resource {resource} does not support attribute {attribute} in Fn::GetAtt")
        })
    }

    fn substitute(&self, argument: &Value, depth: usize) -> Result<String, String> {
        let (text, own) = match argument {
            Value::String(text) => (text, Map::new()),
            Value::Array(items) => match items.as_slice() {
                [Value::String(text), Value::Object(own)] => (text, own.clone()),
                _ => return Err("Fn::Sub must be text, or [text, {name: value}]".into()),
            },
            _ => return Err("Fn::Sub must be text, or [text, {name: value}]".into()),
        };
        let mut out = String::new();
        for part in parts(text) {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(name) => match own.get(name) {
                    Some(value) => {
                        out += &plain(&self.at(value, depth)?).ok_or_else(|| format!("Fn::Sub: {name} must be text"))?
                    }
                    None => match name.split_once('.') {
                        Some((resource, attribute)) => out += &self.attribute(resource, attribute)?,
                        None => out += &self.reference(name)?,
                    },
                },
            }
        }
        bounded(out)
    }
}

fn bounded(text: String) -> Result<String, String> {
    if text.len() > MAX_TEXT { Err("a function makes too long a text".into()) } else { Ok(text) }
}

/// The function that an object is, if it is one.
fn function(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, argument) = map.iter().next().filter(|_| map.len() == 1)?;
    (name == "Ref" || name.starts_with("Fn::")).then_some((name.as_str(), argument))
}

fn pair(argument: &Value) -> Option<(String, String)> {
    match argument {
        Value::String(text) => text.split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())),
        Value::Array(items) => match items.as_slice() {
            [a, b] => Some((plain(a)?, plain(b)?)),
            _ => None,
        },
        _ => None,
    }
}

enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// `${name}` and what is between; `${!name}` is the text `${name}`.
fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        let name = &rest[start + 2..start + length];
        parts.push(Part::Text(&rest[..start]));
        match name.strip_prefix('!') {
            Some(_) => {
                parts.push(Part::Text("${"));
                parts.push(Part::Text(&rest[start + 3..start + length + 1]));
            }
            None => parts.push(Part::Name(name.trim())),
        }
        rest = &rest[start + length + 1..];
    }
    parts.push(Part::Text(rest));
    parts
}

/// The resources that a value names.
fn named(value: &Value, template: &Template, found: &mut BTreeSet<String>) {
    let mut add = |name: &str| {
        let name = name.split_once('.').map_or(name, |(resource, _)| resource);
        if template.resources.contains_key(name) {
            found.insert(name.to_owned());
        }
    };
    match value {
        Value::Array(items) => items.iter().for_each(|v| named(v, template, found)),
        Value::Object(map) => {
            match function(map) {
                Some(("Ref", Value::String(name))) => add(name),
                Some(("Fn::GetAtt", argument)) => drop(pair(argument).map(|(resource, _)| add(&resource))),
                Some(("Fn::Sub", argument)) => {
                    let text = argument.as_str().or_else(|| argument.get(0)?.as_str()).unwrap_or("");
                    for part in parts(text) {
                        if let Part::Name(name) = part {
                            add(name);
                        }
                    }
                }
                _ => {}
            }
            map.values().for_each(|v| named(v, template, found));
        }
        _ => {}
    }
}

/// The resources in an order in which each comes after those that it names.
pub fn order(template: &Template) -> Result<Vec<String>, String> {
    let mut needs: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, resource) in &template.resources {
        let mut found = BTreeSet::new();
        named(&resource.properties, template, &mut found);
        for other in &resource.depends_on {
            if !template.resources.contains_key(other) {
                return Err(format!("Template error: {name} depends on {other}, which is not there"));
            }
            found.insert(other.clone());
        }
        needs.insert(name, found);
    }
    let mut order: Vec<String> = Vec::new();
    while !needs.is_empty() {
        let ready: Vec<&str> =
            needs.iter().filter(|(_, n)| n.iter().all(|o| order.contains(o))).map(|(name, _)| *name).collect();
        if ready.is_empty() {
            let names: Vec<&str> = needs.keys().copied().collect();
            return Err(format!("Circular dependency between resources: [{}]", names.join(", ")));
        }
        for name in ready {
            needs.remove(name);
            order.push(name.to_owned());
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve(value: Value) -> Result<Value, String> {
        let references = BTreeMap::from([("role".to_owned(), "role-1".to_owned())]);
        let attributes = BTreeMap::from([("role".to_owned(), BTreeMap::from([("Arn".to_owned(), "arn:r".to_owned())]))]);
        let values = BTreeMap::from([
            ("p".to_owned(), "v".to_owned()),
            ("list".to_owned(), "a, b".to_owned()),
            ("AWS::Region".to_owned(), "here".to_owned()),
        ]);
        Scope { values, lists: BTreeSet::from(["list".to_owned()]), references: &references, attributes: &attributes }
            .resolve(&value)
    }

    #[test]
    fn functions_mean_what_cloudformation_says() {
        for (value, expected) in [
            (json!({"Ref": "p"}), json!("v")),
            (json!({"Ref": "role"}), json!("role-1")),
            (json!({"Ref": "list"}), json!(["a", "b"])),
            (json!({"Fn::GetAtt": ["role", "Arn"]}), json!("arn:r")),
            (json!({"Fn::GetAtt": "role.Arn"}), json!("arn:r")),
            (json!({"Fn::Sub": "${p}-${AWS::Region}-${role.Arn}-${!p}-$p-${"}), json!("v-here-arn:r-${p}-$p-${")),
            (json!({"Fn::Sub": ["${x}/${role}", {"x": {"Ref": "p"}}]}), json!("v/role-1")),
            (json!({"Fn::Join": ["-", ["a", {"Ref": "p"}, 3]]}), json!("a-v-3")),
            (json!({"Fn::Select": [1, {"Fn::Split": ["/", "x/y/z"]}]}), json!("y")),
            (json!({"a": [{"Ref": "AWS::NoValue"}, 1], "b": {"Ref": "AWS::NoValue"}}), json!({"a": [1]})),
        ] {
            assert_eq!(resolve(value.clone()).unwrap(), expected, "{value}");
        }
        for bad in [
            json!({"Ref": "q"}),
            json!({"Ref": 3}),
            json!({"Fn::GetAtt": ["role", "Id"]}),
            json!({"Fn::GetAtt": ["q", "Arn"]}),
            json!({"Fn::If": ["c", 1, 2]}),
            json!({"Fn::ImportValue": "x"}),
            json!({"Fn::Sub": 3}),
            json!({"Fn::Join": "x"}),
            json!({"Fn::Select": [5, ["a"]]}),
            json!({"Fn::Sub": "${q}"}),
        ] {
            assert!(resolve(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_come_after_what_they_name() {
        let template = |text: &str| Template::parse(text).unwrap();
        let good = template(
            "Resources:\n  a: {Type: T, Properties: {x: !Sub 'y${c.Arn}'}}\n  b: {Type: T, DependsOn: a}\n  c: {Type: T}",
        );
        assert_eq!(order(&good).unwrap(), ["c", "a", "b"]);
        let circle =
            template("Resources:\n  a: {Type: T, Properties: {x: !Ref b}}\n  b: {Type: T, Properties: {x: !GetAtt a.Arn}}");
        assert!(order(&circle).unwrap_err().contains("[a, b]"));
        assert!(order(&template("Resources:\n  a: {Type: T, DependsOn: z}")).is_err());
    }
}
