//! A template: parameters, resources, outputs; what in it is not understood is refused by name. Pure.

use super::yaml;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const MAX_RESOURCES: usize = 100;
const MAX_PARAMETERS: usize = 200;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// For people.
    pub description: Option<String>,
    /// By name.
    pub parameters: BTreeMap<String, Parameter>,
    /// By logical name.
    pub resources: BTreeMap<String, Resource>,
    /// By name.
    pub outputs: BTreeMap<String, Output>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// `String`, `Number`, `CommaDelimitedList`, `List<Number>`.
    pub kind: String,
    /// Taken if none is given.
    pub default: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Whether its value is never shown.
    pub no_echo: bool,
    allowed: Vec<String>,
    pattern: Option<String>,
    length: (usize, usize),
    range: (f64, f64),
}

/// A resource as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// `AWS::IAM::Role`.
    pub kind: String,
    /// Not resolved yet.
    pub properties: Value,
    /// `DependsOn`.
    pub depends_on: Vec<String>,
}

/// An output as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Not resolved yet.
    pub value: Value,
    /// For people.
    pub description: Option<String>,
}

fn object<'a>(at: &str, value: &'a Value) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("Template format error: [{at}] must be an object"))
}

fn known(at: &str, map: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    match map.keys().find(|k| !names.contains(&k.as_str())) {
        Some(other) => Err(format!("Template format error: [{at}/{other}] is not supported by this service")),
        None => Ok(()),
    }
}

/// Text of a plain value: numbers and truth are as good as text here.
pub fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn section<'a>(document: &'a Map<String, Value>, name: &str) -> Result<Vec<(&'a String, &'a Map<String, Value>)>, String> {
    let Some(value) = document.get(name).filter(|v| !v.is_null()) else { return Ok(Vec::new()) };
    let entries = object(&format!("/{name}"), value)?;
    entries
        .iter()
        .map(|(key, value)| match is_name(key) {
            true => Ok((key, object(&format!("/{name}/{key}"), value)?)),
            false => Err(format!("Template format error: [/{name}] '{key}' must have letters and digits only")),
        })
        .collect()
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Template, String> {
        let document = yaml::parse(text)?;
        let document = object("/", &document)?;
        known("", document, &["AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Resources", "Outputs"])?;
        match document.get("AWSTemplateFormatVersion").map(|v| plain(v).unwrap_or_default()).as_deref() {
            None | Some("2010-09-09") => {}
            Some(other) => {
                return Err(format!(
                    "Template format error: {other} is not a supported value for AWSTemplateFormatVersion."
                ));
            }
        }
        let text = |map: &Map<String, Value>, name: &str| map.get(name).and_then(plain);
        let mut parameters = BTreeMap::new();
        for (name, map) in section(document, "Parameters")? {
            parameters.insert(name.clone(), Parameter::parse(name, map)?);
        }
        let mut resources = BTreeMap::new();
        for (name, map) in section(document, "Resources")? {
            let at = format!("/Resources/{name}");
            known(&at, map, &["Type", "Properties", "DependsOn", "Metadata"])?;
            let kind = text(map, "Type").ok_or_else(|| {
                format!("Template format error: [{at}] Every Resources object must contain a Type member.")
            })?;
            let depends_on = match map.get("DependsOn") {
                None => Vec::new(),
                Some(Value::String(one)) => vec![one.clone()],
                Some(Value::Array(list)) => list.iter().filter_map(plain).collect(),
                Some(_) => return Err(format!("Template format error: [{at}/DependsOn] must be a name or a list of names")),
            };
            let properties = map.get("Properties").cloned().unwrap_or_else(|| Value::Object(Map::new()));
            object(&format!("{at}/Properties"), &properties)?;
            resources.insert(name.clone(), Resource { kind, properties, depends_on });
        }
        if resources.is_empty() || resources.len() > MAX_RESOURCES || parameters.len() > MAX_PARAMETERS {
            return Err(format!(
                "Template format error: there must be 1 to {MAX_RESOURCES} resources and at most {MAX_PARAMETERS} parameters"
            ));
        }
        let mut outputs = BTreeMap::new();
        for (name, map) in section(document, "Outputs")? {
            known(&format!("/Outputs/{name}"), map, &["Value", "Description"])?;
            let value = map
                .get("Value")
                .cloned()
                .ok_or_else(|| format!("Template format error: [/Outputs/{name}] must have a Value"))?;
            outputs.insert(name.clone(), Output { value, description: text(map, "Description") });
        }
        if let Some(both) = resources.keys().find(|name| parameters.contains_key(*name)) {
            return Err(format!("Template format error: {both} is both a parameter and a resource"));
        }
        Ok(Template { description: text(document, "Description"), parameters, resources, outputs })
    }

    /// The parameters' values: those given, checked, and defaults for the others.
    pub fn values(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
        if let Some(other) = given.keys().find(|k| !self.parameters.contains_key(*k)) {
            return Err(format!("Parameters: [{other}] do not exist in the template"));
        }
        let mut values = BTreeMap::new();
        let mut missing = Vec::new();
        for (name, parameter) in &self.parameters {
            match given.get(name).or(parameter.default.as_ref()) {
                Some(value) => {
                    parameter.check(name, value)?;
                    values.insert(name.clone(), value.clone());
                }
                None => missing.push(name.as_str()),
            }
        }
        match missing.is_empty() {
            true => Ok(values),
            false => Err(format!("Parameters: [{}] must have values", missing.join(", "))),
        }
    }
}

impl Parameter {
    fn parse(name: &str, map: &Map<String, Value>) -> Result<Parameter, String> {
        let at = format!("/Parameters/{name}");
        known(
            &at,
            map,
            &[
                "Type", "Default", "Description", "NoEcho", "AllowedValues", "AllowedPattern", "ConstraintDescription",
                "MinLength", "MaxLength", "MinValue", "MaxValue",
            ],
        )?;
        let text = |name: &str| map.get(name).and_then(plain);
        let kind = text("Type").unwrap_or_default();
        if !["String", "Number", "CommaDelimitedList", "List<Number>"].contains(&kind.as_str()) {
            return Err(format!("Template format error: [{at}] the type \"{kind}\" is not supported by this service"));
        }
        let number = |name: &str, otherwise: f64| match text(name) {
            None => Ok(otherwise),
            Some(text) => text.parse::<f64>().map_err(|_| format!("Template format error: [{at}/{name}] must be a number")),
        };
        let pattern = text("AllowedPattern");
        if let Some(pattern) = &pattern
            && regex_lite::Regex::new(&whole(pattern)).is_err()
        {
            return Err(format!(
                "Template format error: [{at}/AllowedPattern] is not a regular expression that this service understands"
            ));
        }
        Ok(Parameter {
            default: text("Default"),
            description: text("Description"),
            no_echo: text("NoEcho").is_some_and(|t| t == "true"),
            allowed: map.get("AllowedValues").and_then(Value::as_array).into_iter().flatten().filter_map(plain).collect(),
            pattern,
            length: (number("MinLength", 0.0)? as usize, number("MaxLength", 4096.0)? as usize),
            range: (number("MinValue", f64::MIN)?, number("MaxValue", f64::MAX)?),
            kind,
        })
    }

    fn check(&self, name: &str, value: &str) -> Result<(), String> {
        let fault = if !self.allowed.is_empty() && !self.allowed.iter().any(|a| a == value) {
            format!("must be one of {}", self.allowed.join(", "))
        } else if !(self.length.0..=self.length.1).contains(&value.chars().count()) {
            format!("must have {} to {} characters", self.length.0, self.length.1)
        } else if self.kind == "Number" && !value.parse::<f64>().is_ok_and(|n| (self.range.0..=self.range.1).contains(&n)) {
            "must be a number in its range".to_owned()
        } else if let Some(pattern) = &self.pattern
            && !regex_lite::Regex::new(&whole(pattern)).is_ok_and(|r| r.is_match(value))
        {
            format!("must match pattern {pattern}")
        } else {
            return Ok(());
        };
        Err(format!("Parameter '{name}' {fault}"))
    }
}

fn whole(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_named() {
        let resource = "Resources: {r: {Type: AWS::IAM::Role}}";
        for (text, expected) in [
            ("Conditions: {c: true}\nResources: {r: {Type: T}}", "Conditions"),
            ("Resources: {r: {Type: T, Condition: c}}", "Condition"),
            ("Resources: {r: {Properties: {}}}", "Type"),
            ("Resources: {}", "resources"),
            ("Parameters: {}", "resources"),
            ("AWSTemplateFormatVersion: 2020-01-01\nResources: {r: {Type: T}}", "AWSTemplateFormatVersion"),
            ("Parameters: {p: {Type: AWS::SSM::Parameter::Value}}\nResources: {r: {Type: T}}", "AWS::SSM"),
            ("Parameters: {r: {Type: String}}\nResources: {r: {Type: T}}", "both"),
            ("Resources: {r-1: {Type: T}}", "r-1"),
            ("Outputs: {o: {}}\nResources: {r: {Type: T}}", "Value"),
            ("- a", "object"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Template::parse(resource).is_ok());
    }

    #[test]
    fn parameters_are_checked_and_have_defaults() {
        let text = "Parameters:\n  a: {Type: String, Default: x, AllowedValues: [x, y]}\n  b: {Type: Number, MinValue: 1, MaxValue: 5}\n  \
                    c: {Type: String, Default: ab, AllowedPattern: '[a-c]+', MaxLength: 3}\nResources: {r: {Type: T}}";
        let template = Template::parse(text).unwrap();
        let values =
            |pairs: &[(&str, &str)]| template.values(&pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect());
        assert_eq!(values(&[("b", "5")]).unwrap().values().collect::<Vec<_>>(), ["x", "5", "ab"]);
        for (pairs, expected) in [
            (&[][..], "[b] must have values"),
            (&[("b", "6")], "'b'"),
            (&[("b", "x")], "'b'"),
            (&[("b", "1"), ("a", "z")], "one of x, y"),
            (&[("b", "1"), ("c", "abd")], "pattern"),
            (&[("b", "1"), ("c", "abca")], "characters"),
            (&[("b", "1"), ("q", "1")], "[q] do not exist"),
        ] {
            let error = values(pairs).unwrap_err();
            assert!(error.contains(expected), "{pairs:?}: {error}");
        }
    }
}
