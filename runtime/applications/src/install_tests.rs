//! What stays on the disk and what goes.

use super::*;

/// Runtime D11: removing one instance took away the root tree that another one ran from, whose update was on its way.
#[test]
fn what_something_runs_from_or_brings_is_not_collected() {
    let state = tempfile::tempdir().unwrap();
    let places = Places { state: state.path().to_owned(), ..Places::default() };
    let (kept, gone) = ("a".repeat(64), "b".repeat(64));
    for directory in [places.trees(), places.models(), places.objects(), places.instance("one"), places.instance("two")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    for hash in [&kept, &gone] {
        std::fs::create_dir(places.trees().join(hash)).unwrap();
        std::fs::create_dir(places.trees().join(format!(".{hash}.new"))).unwrap();
        std::fs::write(places.models().join(format!("{hash}.onnx")), "x").unwrap();
        std::fs::write(places.objects().join(format!(".{hash}.part")), "x").unwrap();
    }
    let discard = Discard::new(state.path());
    collect(&places, &discard, &BTreeSet::from([kept.clone()]), &BTreeSet::from(["one".to_owned()]));
    let names = |directory: PathBuf| -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(places.trees()), [format!(".{kept}.new"), kept.clone()]);
    assert_eq!(names(places.models()), [format!("{kept}.onnx")]);
    assert_eq!(names(places.objects()), [format!(".{kept}.part")]);
    assert_eq!(names(state.path().join("instances")), ["one"]);
    assert_eq!(discard.empty(&|| true).unwrap(), crate::discard::Emptied::Whole);
}

#[test]
fn people_read_what_an_object_is_for_beside_its_hash() {
    let name = format!("{}.tar.gz", "96b4db37".repeat(8));
    let object = Object { name, bucket: String::new(), key: String::new(), size: 1, sha256: "x".into() };
    let named = Named { object: &object, of: "the model of package SQUEEZE 1.0, node model_node".into() };
    assert_eq!(named.to_string(), "the model of package SQUEEZE 1.0, node model_node (96b4db3796b4…)");
    let object = Object { name: "package.json".into(), ..object };
    assert_eq!(Named { object: &object, of: "the manifest".into() }.to_string(), "the manifest (package.json)");
}
