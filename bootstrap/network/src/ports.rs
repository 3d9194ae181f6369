//! Which interfaces are the appliance's two ports, and whether they have a cable.

use crate::plan::PORTS;
use crate::system::Port;
use std::fs;
use std::path::Path;

/// Ethernet interfaces with hardware behind them, in the order of their place on the bus (never of their names, which
/// depend on which driver was quicker), at most two. `only` chooses by name instead, in the order given.
pub fn find(sys_class_net: &Path, only: &[String]) -> Vec<Port> {
    if !only.is_empty() {
        return only.iter().take(PORTS).filter_map(|name| read(&sys_class_net.join(name))).collect();
    }
    let mut found: Vec<(std::path::PathBuf, Port)> = fs::read_dir(sys_class_net)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let place = fs::canonicalize(path.join("device")).ok()?;
            // Wireless interfaces are Ethernet to the kernel, but no ports.
            if path.join("wireless").exists() || path.join("phy80211").exists() {
                return None;
            }
            Some((place, read(&path)?))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.index.cmp(&b.1.index)));
    found.into_iter().map(|(_, port)| port).take(PORTS).collect()
}

fn read(path: &Path) -> Option<Port> {
    let text = |name: &str| fs::read_to_string(path.join(name)).ok().map(|text| text.trim().to_owned());
    // ARPHRD_ETHER
    if text("type")? != "1" {
        return None;
    }
    let mut mac = [0; 6];
    let address = text("address")?;
    let mut parts = address.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    Some(Port {
        index: text("ifindex")?.parse().ok()?,
        name: path.file_name()?.to_string_lossy().into_owned(),
        mac,
        // Reading fails (EINVAL) while the port is administratively down.
        carrier: text("carrier").as_deref() == Some("1"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(root: &Path, name: &str, place: Option<&str>, index: u32, kind: &str) {
        let path = root.join("class/net").join(name);
        fs::create_dir_all(&path).unwrap();
        for (file, text) in
            [("type", kind), ("address", "52:54:00:00:00:01"), ("ifindex", &index.to_string()), ("carrier", "1")]
        {
            fs::write(path.join(file), format!("{text}\n")).unwrap();
        }
        if let Some(place) = place {
            let device = root.join("devices").join(place);
            fs::create_dir_all(&device).unwrap();
            std::os::unix::fs::symlink(device, path.join("device")).unwrap();
        }
    }

    #[test]
    fn ports_are_ordered_by_their_place_on_the_bus() {
        let root = tempfile::tempdir().unwrap();
        interface(root.path(), "lo", None, 1, "772");
        interface(root.path(), "veth7", None, 5, "1");
        interface(root.path(), "eth0", Some("pci0000:00/0000:00:03.0"), 2, "1");
        interface(root.path(), "eth1", Some("pci0000:00/0000:00:02.0"), 3, "1");
        interface(root.path(), "wlan0", Some("pci0000:00/0000:00:01.0"), 4, "1");
        fs::create_dir(root.path().join("class/net/wlan0/wireless")).unwrap();
        let class = root.path().join("class/net");
        let names: Vec<_> = find(&class, &[]).into_iter().map(|port| port.name).collect();
        assert_eq!(names, ["eth1", "eth0"]);
        assert_eq!(find(&class, &["veth7".into()])[0].mac, [0x52, 0x54, 0, 0, 0, 1]);
    }

    #[test]
    fn a_port_that_is_down_has_no_carrier() {
        let root = tempfile::tempdir().unwrap();
        interface(root.path(), "eth0", Some("pci"), 2, "1");
        fs::remove_file(root.path().join("class/net/eth0/carrier")).unwrap();
        assert!(!find(&root.path().join("class/net"), &[])[0].carrier);
    }
}
