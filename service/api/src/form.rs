//! Forms, as AWS's query protocol sends them: fields by name. Pure, and bounded.

use crate::sigv4::canonical::query_pairs;
use axum::http::request::Parts;
use std::collections::BTreeMap;

/// Most fields of a form.
const MAX_FIELDS: usize = 100_000;

/// The fields of a request. No name is there twice: nobody finds the one, and somebody else the other.
#[derive(Debug, Clone, Default)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// From the body, or from the query where there is no body. `None` if it is too large, not UTF-8 without zeros, or
    /// says something twice.
    pub fn of(parts: &Parts, body: &[u8]) -> Option<Form> {
        let form = match body {
            [] => parts.uri.query().unwrap_or(""),
            body => std::str::from_utf8(body).ok()?,
        };
        if form.bytes().filter(|b| *b == b'&').count() > MAX_FIELDS {
            return None;
        }
        // PostgreSQL's texts hold no zero.
        let text = |bytes| String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let mut fields = BTreeMap::new();
        for (name, value) in query_pairs(form) {
            if fields.insert(text(name)?, text(value)?).is_some() {
                return None;
            }
        }
        Some(Form(fields))
    }

    /// The operation.
    pub fn action(&self) -> &str {
        self.get("Action").unwrap_or("")
    }

    /// A field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The fields of these names, and those below them.
    pub fn only(mut self, names: &[&str]) -> Form {
        self.0.retain(|field, _| names.contains(&field.split('.').next().unwrap_or_default()));
        self
    }

    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether any field has this name or lies below it.
    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|n| n == name || n.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// `<name>.member.1`, `<name>.member.2`, ….
    pub fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|n| self.get(&format!("{name}.member.{n}"))).collect()
    }

    /// `<name>.member.<n>.<field>` for each of `fields`, as long as the first one is there.
    pub fn structures<const N: usize>(&self, name: &str, fields: [&str; N]) -> Vec<[Option<&str>; N]> {
        (1..)
            .map(|n| fields.map(|f| self.get(&format!("{name}.member.{n}.{f}"))))
            .take_while(|found| found.first().is_some_and(Option::is_some))
            .collect()
    }
}

/// How many fields a form has at most; of one that is too large, one more than are read.
pub fn fields(body: &[u8]) -> usize {
    body.iter().filter(|b| **b == b'&').count().min(MAX_FIELDS) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        let parts = axum::http::Request::builder().uri("/").body(()).unwrap().into_parts().0;
        Form::of(&parts, text.as_bytes()).unwrap()
    }

    #[test]
    fn forms_have_lists_and_structures() {
        let form =
            form("Action=A&L.member.1=x&L.member.2=y%20z&L.member.4=q&T.member.1.Key=k&T.member.1.Value=v&T.member.2.Key=w");
        assert_eq!(form.action(), "A");
        assert_eq!(form.list("L"), ["x", "y z"]);
        assert_eq!(form.structures("T", ["Key", "Value"]), [[Some("k"), Some("v")], [Some("w"), None]]);
        assert!(form.has("T") && form.has("L") && !form.has("TT") && form.has("Action"));
    }

    #[test]
    fn a_form_that_is_not_text_or_too_long_is_none() {
        let parts = axum::http::Request::builder().uri("/").body(()).unwrap().into_parts().0;
        assert!(Form::of(&parts, b"a=\xff").is_none());
        assert!(Form::of(&parts, b"a=%ff").is_none());
        assert!(Form::of(&parts, b"a=%00").is_none());
        assert!(Form::of(&parts, b"TopicArn=mine&TopicArn=yours").is_none(), "said twice");
        let many: String = (0..MAX_FIELDS + 2).map(|n| format!("{n}&")).collect();
        assert!(Form::of(&parts, many.as_bytes()).is_none());
    }
}
