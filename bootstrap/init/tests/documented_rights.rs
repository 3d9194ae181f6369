//! `docs/security.md` lists who may do what. The lists are written from the tables that the appliance itself asks, and this
//! test holds the page against them. `BELVEDERE_WRITE_DOCS=1 scripts/cargo test -p belvedere-init --test documented_rights`
//! writes them anew.

use belvedere_init::table::{Kernel, Network, SERVICES, user_of};
use belvedere_interfaces::rights::{CHANNEL, RIGHTS};
use std::path::Path;

/// What each service is started as, may do and sees.
fn services() -> String {
    let mut text = String::from(
        "| service | user | capabilities | network | devices | writes of the kernel's files | sandbox | memory MiB | tasks | open files |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for service in SERVICES {
        let rights: Vec<String> = service.capabilities.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
        let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
        let mut devices: Vec<String> = service.devices.iter().map(|device| format!("`{device}`")).collect();
        if service.sticks {
            devices.push("disks behind USB".to_owned());
        }
        let network = match service.network {
            Network::Appliance => "the appliance's",
            Network::None => "none",
        };
        let kernel = match service.kernel {
            Kernel::ReadOnly => "none",
            Kernel::Lights => "the lights'",
            Kernel::Containers => "control groups, name spaces",
        };
        let sandbox = match (service.sandbox, service.kernel) {
            (Some(profile), _) => format!("{profile:?}, set by the launcher"),
            (None, Kernel::Containers) => "none: it makes containers".to_owned(),
            (None, _) => "its own, tighter one".to_owned(),
        };
        text += &format!(
            "| {} | {} | {} | {network} | {} | {kernel} | {sandbox} | {} | {} | {} |\n",
            service.name,
            user_of(service),
            or_none(rights.join(", ")),
            or_none(devices.join(", ")),
            service.memory,
            service.tasks,
            service.open_files,
        );
    }
    text
}

/// Who may call what.
fn calls() -> String {
    let mut text = String::from("| server | method | callers |\n|---|---|---|\n");
    for right in RIGHTS {
        let method = if right.method == CHANNEL { "its channel".to_owned() } else { format!("`{}`", right.method) };
        let callers: Vec<&str> = right.callers.iter().map(|caller| caller.name()).collect();
        text += &format!("| {} | {method} | {} |\n", right.server, callers.join(", "));
    }
    text
}

#[test]
fn the_page_says_what_the_tables_say() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md"));
    let page = std::fs::read_to_string(path).unwrap();
    let mut wanted = page.clone();
    for (which, list) in [("services", services()), ("calls", calls())] {
        let (begin, end) = (format!("<!-- begin {which} -->\n"), format!("<!-- end {which} -->\n"));
        let start = wanted.find(&begin).unwrap_or_else(|| panic!("the page has no {begin:?}")) + begin.len();
        let stop = start + wanted[start..].find(&end).unwrap_or_else(|| panic!("the page has no {end:?}"));
        wanted.replace_range(start..stop, &list);
    }
    if std::env::var_os("BELVEDERE_WRITE_DOCS").is_some() {
        std::fs::write(path, &wanted).unwrap();
        return;
    }
    let different = page.lines().zip(wanted.lines()).find(|(page, wanted)| page != wanted);
    assert!(
        page == wanted,
        "docs/security.md does not say what the tables say; first difference: {different:?}\nwrite it anew with \
         BELVEDERE_WRITE_DOCS=1 scripts/cargo test -p belvedere-init --test documented_rights"
    );
}
