//! From a template and what is there to what will be: names, resolved properties, changes, outputs. Nothing is done
//! here, and whatever can be found wrong is found here.

use super::kinds::{self, Planned};
use super::resolve::{Scope, order};
use super::template::{Template, plain};
use super::watching::SUBSCRIPTION;
use belvedere_store::now_ms;
use belvedere_store::stacks::{Change, Source, StackOutput, StackResource};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where a stack is.
pub struct Place<'a> {
    /// `us-east-1`.
    pub region: &'a str,
    /// Twelve digits.
    pub account: &'a str,
    /// Its name.
    pub stack: &'a str,
    /// Its ARN.
    pub stack_id: &'a str,
}

/// What a stack will be.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the order of making.
    pub resources: Vec<(StackResource, Planned)>,
    /// What goes, in the order of removing.
    pub removed: Vec<StackResource>,
    /// What changes.
    pub changes: Vec<Change>,
    /// Outputs.
    pub outputs: Vec<StackOutput>,
    /// The template's.
    pub description: Option<String>,
}

/// The plan of a template over what is there.
pub fn plan(template: &Template, source: &Source, place: &Place<'_>, there: &[StackResource]) -> Result<Plan, String> {
    for (name, resource) in &template.resources {
        if !kinds::KINDS.contains(&resource.kind.as_str()) {
            kinds::plan(&resource.kind, &Value::Null).map_err(|e| {
                format!("Template format error: Unrecognized resource types: [{}] ({name}: {e})", resource.kind)
            })?;
        }
    }
    let order = order(template)?;
    let known = |name: &str| there.iter().find(|r| r.logical_id == name);
    let mut scope = Scope {
        values: values(source, place),
        lists: template.parameters.iter().filter(|(_, p)| p.kind.contains("List")).map(|(n, _)| n.clone()).collect(),
        references: &BTreeMap::new(),
        attributes: &BTreeMap::new(),
    };
    // First everything gets its name: names may use parameters, not other resources.
    let (mut references, mut attributes) = (BTreeMap::new(), BTreeMap::new());
    for name in &order {
        let resource = &template.resources[name];
        let property = |property: &str| match resource.properties.get(property) {
            None => Ok(None),
            Some(value) => scope
                .resolve(value)
                .map(|v| plain(&v))
                .map_err(|e| format!("{e} (in {property} of {name}, which other resources depend on)")),
        };
        let path = property("Path")?.unwrap_or_else(|| "/".into());
        let given = match kinds::name_property(&resource.kind) {
            Some(p) => property(p)?,
            None => None,
        };
        let (reference, attribute) = match (known(name), given) {
            (Some(old), _) if old.kind == resource.kind => (old.physical_id.clone(), old.attributes.clone()),
            (_, given) => {
                let chosen = match given {
                    Some(given) => given,
                    // A subscription's ARN begins with its topic's, which has its name by now.
                    None if resource.kind == SUBSCRIPTION => {
                        let so_far = Scope { references: &references, attributes: &attributes, ..scope.clone() };
                        let topic = resource.properties.get("TopicArn").map(|v| so_far.resolve(v)).transpose();
                        topic.map_err(|e| format!("Resource {name}: {e}"))?.as_ref().and_then(plain).unwrap_or_default()
                    }
                    None => kinds::made_name(place.stack, name),
                };
                kinds::identity(&resource.kind, place, &chosen, &path)
            }
        };
        references.insert(name.clone(), reference);
        attributes.insert(name.clone(), attribute);
    }
    scope.references = &references;
    scope.attributes = &attributes;
    let mut resources = Vec::new();
    let mut changes = Vec::new();
    for name in &order {
        let resource = &template.resources[name];
        let at = |e: String| format!("Resource {name}: {e}");
        let properties = scope.resolve(&resource.properties).map_err(at)?;
        let planned = kinds::plan(&resource.kind, &properties).map_err(at)?;
        if let Some(fault) = kinds::fault(&planned, place.account) {
            return Err(at(fault));
        }
        let old = known(name);
        if let Some(old) = old {
            let fixed = kinds::fixed(&resource.kind).iter().find(|p| old.properties.get(**p) != properties.get(**p));
            if old.kind != resource.kind || fixed.is_some() {
                let what = fixed.copied().unwrap_or("Type");
                return Err(at(format!("{what} cannot be changed by this service; give the resource another logical name")));
            }
        }
        let action = match old {
            None => Some("Add"),
            Some(old) if old.properties != properties => Some("Modify"),
            Some(_) => None,
        };
        if let Some(action) = action {
            let physical_id = old.map(|o| o.physical_id.clone());
            changes.push(Change {
                action: action.into(),
                logical_id: name.clone(),
                kind: resource.kind.clone(),
                physical_id,
            });
        }
        let status = match action {
            None => old.map_or_else(|| "CREATE_COMPLETE".to_owned(), |o| o.status.clone()),
            Some("Add") => "CREATE_COMPLETE".into(),
            Some(_) => "UPDATE_COMPLETE".into(),
        };
        let updated_ms = if action.is_some() { now_ms() } else { old.map_or_else(now_ms, |o| o.updated_ms) };
        let resource = StackResource {
            logical_id: name.clone(),
            kind: resource.kind.clone(),
            physical_id: references[name].clone(),
            properties,
            attributes: attributes[name].clone(),
            status,
            updated_ms,
        };
        resources.push((resource, planned));
    }
    let removed: Vec<StackResource> =
        there.iter().filter(|r| !template.resources.contains_key(&r.logical_id)).cloned().collect();
    for gone in &removed {
        let physical_id = Some(gone.physical_id.clone());
        changes.push(Change {
            action: "Remove".into(),
            logical_id: gone.logical_id.clone(),
            kind: gone.kind.clone(),
            physical_id,
        });
    }
    let mut outputs = Vec::new();
    for (key, output) in &template.outputs {
        let value = scope.resolve(&output.value).map_err(|e| format!("Output {key}: {e}"))?;
        let value = plain(&value).ok_or_else(|| {
            format!("Template format error: The Value field of every Outputs member must evaluate to a String ({key}).")
        })?;
        outputs.push(StackOutput { key: key.clone(), value, description: output.description.clone() });
    }
    Ok(Plan { resources, removed, changes, outputs, description: template.description.clone() })
}

/// Parameters and pseudo parameters.
fn values(source: &Source, place: &Place<'_>) -> BTreeMap<String, String> {
    let mut values = source.parameters.clone();
    for (name, value) in [
        ("AWS::AccountId", place.account),
        ("AWS::Region", place.region),
        ("AWS::StackName", place.stack),
        ("AWS::StackId", place.stack_id),
        ("AWS::Partition", "aws"),
        ("AWS::URLSuffix", "amazonaws.com"),
    ] {
        values.insert(name.to_owned(), value.to_owned());
    }
    values
}

/// The capabilities that a template needs.
pub fn needed_capability(template: &Template) -> Option<&'static str> {
    let mut needed = None;
    for resource in template.resources.values().filter(|r| kinds::is_iam(&r.kind)) {
        let named = kinds::name_property(&resource.kind).is_some_and(|p| resource.properties.get(p).is_some());
        match named {
            true => return Some("CAPABILITY_NAMED_IAM"),
            false => needed = Some("CAPABILITY_IAM"),
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> =
        Place { region: "us-east-1", account: "123456789012", stack: "panorama-sample", stack_id: "arn:stack" };

    fn of(text: &str, there: &[StackResource]) -> Result<Plan, String> {
        let template = Template::parse(text).unwrap();
        let source = Source { parameters: template.values(&BTreeMap::new())?, ..Source::default() };
        plan(&template, &source, &PLACE, there)
    }

    const ROLE: &str = "
Resources:
  runtimeRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: \"2012-10-17\"
        Statement:
          - Effect: Allow
            Principal: { Service: [panorama.amazonaws.com] }
            Action: [sts:AssumeRole]
      Policies:
        - PolicyName: cloudwatch-putmetrics
          PolicyDocument:
            Version: 2012-10-17
            Statement: [{ Effect: Allow, Action: 'cloudwatch:PutMetricData', Resource: '*' }]
      Path: /service-role/
Outputs:
  roleArn: { Description: the ARN, Value: !GetAtt runtimeRole.Arn }
";

    #[test]
    fn the_guides_role_gets_a_name_and_an_arn() {
        let first = of(ROLE, &[]).unwrap();
        let (role, _) = &first.resources[0];
        assert!(role.physical_id.starts_with("panorama-sample-runtimeRole-"), "{}", role.physical_id);
        assert_eq!(first.outputs[0].value, format!("arn:aws:iam::123456789012:role/service-role/{}", role.physical_id));
        assert_eq!(first.changes.iter().map(|c| c.action.as_str()).collect::<Vec<_>>(), ["Add"]);
        let there: Vec<StackResource> = first.resources.iter().map(|(r, _)| r.clone()).collect();
        let again = of(ROLE, &there).unwrap();
        assert!(again.changes.is_empty() && again.outputs == first.outputs);
        let more = of(&ROLE.replace("PutMetricData", "*"), &there).unwrap();
        assert_eq!((more.changes[0].action.as_str(), &more.resources[0].0.physical_id), ("Modify", &role.physical_id));
        assert!(of(&ROLE.replace("/service-role/", "/other/"), &there).unwrap_err().contains("Path cannot be changed"));
        let other = of(&ROLE.replace("runtimeRole", "other"), &there).unwrap();
        assert_eq!((other.removed.len(), other.changes.len()), (1, 2));
    }

    #[test]
    fn what_is_wrong_is_named_before_anything_is_made() {
        for (change, expected) in [
            (("AWS::IAM::Role", "AWS::EC2::VPC"), "AWS::EC2::VPC"),
            (("Path: /service-role/", "Pth: x"), "Pth"),
            (("Path: /service-role/", "Path: x"), "Path"),
            (("'cloudwatch:PutMetricData'", "PutMetricData"), "PutMetricData"),
            (("panorama.amazonaws.com", "'*'"), "wildcards"),
            (("runtimeRole.Arn", "runtimeRole.RoleId"), "RoleId"),
            (("runtimeRole.Arn", "nobody.Arn"), "nobody"),
            (("Effect: Allow,", "Effect: Allow, NotAction: x,"), "NotAction"),
        ] {
            let text = ROLE.replace(change.0, change.1);
            let error = of(&text, &[]).unwrap_err();
            assert!(error.contains(expected), "{change:?}: {error}");
        }
        assert_eq!(needed_capability(&Template::parse(ROLE).unwrap()), Some("CAPABILITY_IAM"));
        let named = ROLE.replace("Path:", "RoleName: mine\n      Path:");
        assert_eq!(needed_capability(&Template::parse(&named).unwrap()), Some("CAPABILITY_NAMED_IAM"));
    }
}
