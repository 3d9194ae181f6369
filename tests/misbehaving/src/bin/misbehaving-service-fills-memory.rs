//! A service that takes all memory that it can get.

fn main() {
    println!("a bad service that takes all memory");
    belvedere_misbehaving::fill_memory()
}
