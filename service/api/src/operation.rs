//! An operation: which members it takes, and what is to be asked about them.
//!
//! A request is read once, into the members of the operation that it names and no others. The same value is what is asked
//! about and what the handler acts on, so nothing can decide about a request that does not take part in it.

use crate::arn::{Arn, Home};
use crate::model::Member;
use crate::query::Form;
use serde_json::{Map, Value};

/// An operation of a service whose inputs are `I`; `M` says which members it takes.
pub struct Operation<I: 'static, M: 'static> {
    /// Its name, as its service and policies have it.
    pub name: &'static str,
    /// Its members.
    pub takes: M,
    /// What is asked before it is carried out; `None` where a name in its input is none: that is an administrator's alone,
    /// who is told what is wrong with it.
    pub asks: fn(&I, &Home<'_>) -> Option<Vec<Ask>>,
}

/// With a document for its input.
pub type DocumentOperation = Operation<Map<String, Value>, &'static [Member]>;
/// With the fields of a form.
pub type FormOperation = Operation<Form, &'static [&'static str]>;

/// What a request asks for.
pub struct Asked<I: 'static, M: 'static> {
    /// The operation.
    pub operation: &'static Operation<I, M>,
    /// Its members, and nothing else.
    pub input: I,
}

/// Asked with a document.
pub type AskedDocument = Asked<Map<String, Value>, &'static [Member]>;
/// Asked with a form.
pub type AskedForm = Asked<Form, &'static [&'static str]>;

impl<I, M> Operation<I, M> {
    /// The operation of a name.
    pub fn of(operations: &'static [Operation<I, M>], name: &str) -> Option<&'static Operation<I, M>> {
        operations.iter().find(|o| o.name == name)
    }
}

impl DocumentOperation {
    /// Of a document, what this operation takes.
    pub fn asked(&'static self, mut document: Map<String, Value>) -> AskedDocument {
        document.retain(|name, value| !value.is_null() && self.takes.iter().any(|member| member.name == name));
        Asked { operation: self, input: document }
    }
}

impl FormOperation {
    /// Of a form, what this operation takes.
    pub fn asked(&'static self, form: Form) -> AskedForm {
        Asked { operation: self, input: form.only(self.takes) }
    }
}

/// What an action is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// What has this ARN.
    Of(Arn),
    /// The role of this name, whose path is known when it is looked up.
    Role(String),
    /// The secret that is named so, whose ARN is known when it is looked up.
    Secret(String),
    /// The stack of this name, whose ARN is known when it is looked up.
    Stack(String),
}

/// One thing to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The action; `None`: the operation itself.
    pub action: Option<&'static str>,
    /// What it is about.
    pub subject: Subject,
    /// Condition keys that the call has.
    pub context: Vec<(&'static str, String)>,
}

impl Ask {
    /// Whether the operation may be done to something.
    pub fn about(subject: Subject) -> Ask {
        Ask { action: None, subject, context: Vec::new() }
    }

    /// Whether the operation may be done to what has this ARN.
    pub fn of(arn: Arn) -> Ask {
        Ask::about(Subject::Of(arn))
    }

    /// Whether something else may be done.
    pub fn also(action: &'static str, arn: Arn) -> Ask {
        Ask { action: Some(action), ..Ask::of(arn) }
    }
}

/// What is asked about an operation on nothing in particular, or on everything.
pub fn anything<I>(_: &I, _: &Home<'_>) -> Option<Vec<Ask>> {
    Some(vec![Ask::of(Arn::any())])
}

/// One question about what has an ARN, if it has one.
pub fn one(arn: Option<Arn>) -> Option<Vec<Ask>> {
    Some(vec![Ask::of(arn?)])
}

/// A text of a document.
pub fn text<'a>(input: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    input.get(name)?.as_str()
}
