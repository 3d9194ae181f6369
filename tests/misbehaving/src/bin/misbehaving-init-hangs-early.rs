//! `/init` of the initial RAM file system hangs, before it armed the watchdog.

fn main() {
    belvedere_misbehaving::hang()
}
