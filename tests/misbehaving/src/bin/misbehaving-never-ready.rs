//! A service that runs and is never ready.

fn main() {
    println!("a bad service that is never ready");
    belvedere_misbehaving::hang()
}
