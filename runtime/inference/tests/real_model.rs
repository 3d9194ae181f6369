//! The real engine with a real (tiny) model.

use belvedere_inference::engine::{Elements, Engine, TensorValue};
use belvedere_inference::onnx_runtime::OnnxRuntime;
use std::path::PathBuf;

fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let output = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/host-library")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

// One test, since a process has one ONNX Runtime.
#[test]
fn onnx_runtime_loads_describes_and_runs_a_model() {
    let engine = OnnxRuntime::new(&library(), 2).unwrap();
    let model = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/double.onnx")).unwrap();
    let session = engine.load(&model).unwrap();
    assert_eq!((session.inputs()[0].name.as_str(), session.inputs()[0].dtype.as_str()), ("x", "float32"));
    assert_eq!(session.inputs()[0].shape, [-1, 2]);
    assert_eq!(session.outputs()[0].name, "y");
    let input =
        |shape: Vec<u64>, values: Vec<f32>| TensorValue { name: "x".into(), shape, elements: Elements::Float32(values) };
    let results = session.run(vec![input(vec![2, 2], vec![1.0, 2.0, 3.0, -4.5])]).unwrap();
    assert_eq!(
        results,
        [TensorValue { name: "y".into(), shape: vec![2, 2], elements: Elements::Float32(vec![2.0, 4.0, 6.0, -9.0]) }]
    );
    // What the check before does not see, the runtime answers and survives.
    assert!(session.run(vec![]).is_err());
    assert!(session.run(vec![input(vec![3], vec![1.0; 3])]).is_err());
    assert!(session.run(vec![input(vec![1, 2], vec![1.0; 2])]).is_ok());
    for length in [0, 1, model.len() / 2, model.len() - 1] {
        assert!(engine.load(&model[..length]).is_err(), "{length}");
    }
    // Weights in another file would be read from the process's own file system.
    assert!(engine.load(b"\x08\x08not a model").is_err());
}
