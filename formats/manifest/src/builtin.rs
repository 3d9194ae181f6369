//! Packages of the owner `panorama`, which every appliance has, and the package that a camera registration makes.

use crate::{Package, PackageName, Version, parse_package};

/// Who owns the built-in packages.
pub const BUILT_IN_OWNER: &str = "panorama";
pub(crate) const ABSTRACT_CAMERA: &str = "panorama::abstract_rtsp_media_source";

const CAMERA: &str = r#"{"nodePackage":{"envelopeVersion":"2021-01-01","name":"abstract_rtsp_media_source","version":"1.0",
 "description":"Stands for a camera that is chosen at deployment.",
 "assets":[{"name":"rtsp_v1_asset","implementations":[{"type":"system","assetUri":"source/video/camera/rtsp/source_rtsp"}]}],
 "interfaces":[{"name":"rtsp_v1_interface","category":"media_source","asset":"rtsp_v1_asset",
  "outputs":[{"name":"video_out","type":"media"}]}]}}"#;

const DISPLAY: &str = r#"{"nodePackage":{"envelopeVersion":"2021-01-01","name":"hdmi_data_sink","version":"1.0",
 "description":"The appliance's HDMI output.",
 "assets":[{"name":"hdmi_asset","implementations":[{"type":"system","assetUri":"sink/video/hdmi"}]}],
 "interfaces":[{"name":"hdmi0","category":"media_sink","asset":"hdmi_asset",
  "inputs":[{"name":"video_in","type":"media"}]}]}}"#;

/// A built-in package: `abstract_rtsp_media_source` or `hdmi_data_sink`, version 1.0.
pub fn built_in(name: &str, version: &str) -> Option<Package> {
    let text = match (name, version) {
        ("abstract_rtsp_media_source", "1.0") => CAMERA,
        ("hdmi_data_sink", "1.0") => DISPLAY,
        _ => return None,
    };
    parse_package(text).ok()
}

/// The package that a camera registered with the template `RTSP_CAMERA_STREAM` becomes: package and interface have the
/// camera's name. Its address and credentials are not in it; the service keeps them.
pub fn camera_package(name: &PackageName, version: &Version) -> Package {
    #[allow(clippy::expect_used)] // a constant, parsed in the tests
    let mut package = parse_package(CAMERA).expect("the built-in camera package parses");
    package.name = Some(name.clone());
    package.version = Some(version.clone());
    package.description = None;
    for interface in &mut package.interfaces {
        interface.name = name.clone();
    }
    package
}
