//! The steps at the bench. Without `burn`, everything but the two questions and the last run: that is the dry run.
//!
//! 1. read the board; 2. make the plan, or refuse; 3. let NVIDIA's program hash the keys and compare (Orin);
//! 4. show the table; 5. write the configuration; 6. run the burning program with `--test`;
//! 7. log what is and what will be; 8. ask for the board's number, then for the words; 9. log that burning begins;
//! 10. burn; 11. read the board again, whatever the program said, and compare fuse by fuse; 12. log what was found.
//!
//! The configuration is removed at the end, also after a failure. A success of the program counts for nothing: the field
//! knows boards of which it said so while half of the fuses were not burned.

use crate::bench::{Bench, BenchError, Fused, Run};
use crate::chip::{Chip, Content, Jetson};
use crate::mask::masked;
use crate::plan::{Plan, Refusal, Row, Value, Wanted, plan};
use crate::reading::{Found, Reading, ReadingError, hex, parse};
use crate::secret::Secret;
use crate::{configuration, table};
use std::fmt;

/// What is to be done, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// What the board shall become.
    pub wanted: Wanted,
    /// The keys' moduli, big-endian, in the order of the hashes.
    pub moduli: Vec<Vec<u8>>,
    /// How the board is spoken to now.
    pub fused: Fused,
    /// Burn, and not only try.
    pub burn: bool,
}

/// How it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// There was nothing to burn.
    Nothing,
    /// The dry run found nothing wrong.
    Tried,
    /// Burned and read back.
    Burned,
}

/// How it ended otherwise. Unless it is [`Failure::Unsure`] or [`Failure::NotAsBurned`], no fuse was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Something at the bench failed.
    Bench(BenchError),
    /// The board's fuses were not understood.
    Reading(ReadingError),
    /// The board must not be burned.
    Refused(Refusal),
    /// NVIDIA's program says another hash than we do, or none.
    Hash(&'static str),
    /// The chip's number was not read: nothing to confirm the board with.
    NoNumber,
    /// The test run said an error.
    Test(String),
    /// Number or words were others.
    NotConfirmed,
    /// Another board answered than the one that was planned for, or it changed meanwhile.
    OtherBoard,
    /// It failed after burning began: some fuses may be burned.
    Unsure(String),
    /// Burning ended, and these fuses are not as they should be.
    NotAsBurned(Vec<&'static str>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AGAIN: &str = "keep the board, put it into recovery mode and run the dry run again (with --fused if the \
                             key's hash is burned): it says what is left to burn";
        match self {
            Failure::Bench(error) => write!(f, "no fuse was touched: {error}"),
            Failure::Reading(error) => write!(f, "no fuse was touched: {error}"),
            Failure::Refused(refusal) => write!(f, "this board is not burned: {refusal}"),
            Failure::Hash(name) => write!(
                f,
                "no fuse was touched: NVIDIA's program does not give the hash that we computed for {name}; one of the two \
                 would make a board that starts nothing"
            ),
            Failure::NoNumber => f.write_str("no fuse was touched: the reading does not say the chip's number (BR_CID)"),
            Failure::Test(line) => write!(f, "no fuse was touched: the test run says an error: {line}"),
            Failure::NotConfirmed => f.write_str("no fuse was touched: it was not confirmed with the right words"),
            Failure::OtherBoard => f.write_str("no fuse was touched: the board does not read as it did before"),
            Failure::Unsure(reason) => write!(f, "fuses may be burned, and it is not known which: {reason}; {AGAIN}"),
            Failure::NotAsBurned(names) => write!(f, "burned, and not as planned: {}; {AGAIN}", names.join(", ")),
        }
    }
}

impl std::error::Error for Failure {}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Failure {
        Failure::Bench(error)
    }
}

/// The words that the operator types in the second step.
pub fn words(plan: &Plan) -> String {
    format!("burn {} fuses for ever", plan.to_burn().count())
}

fn read(bench: &mut dyn Bench, chip: Jetson, fused: Fused) -> Result<Reading, Failure> {
    let output = zeroize::Zeroizing::new(bench.read(fused)?);
    parse(chip, &output).map_err(Failure::Reading)
}

/// Goes through the steps.
///
/// # Errors
/// See [`Failure`]: it says whether a fuse was touched.
pub fn carry_out(bench: &mut dyn Bench, order: &Order) -> Result<Done, Failure> {
    let chip = order.wanted.chip;
    let reading = read(bench, chip, order.fused)?;
    let plan = plan(&order.wanted, Some(&reading)).map_err(Failure::Refused)?;
    if chip == Jetson::Orin {
        compare_hashes(bench, order)?;
    }
    bench.show(&table::text(&plan));
    if plan.to_burn().next().is_none() {
        return Ok(Done::Nothing);
    }
    bench.write_configuration(&configuration::xml(&plan)).map_err(|error| cleared(bench, error.into()))?;
    let result = with_configuration(bench, order, &reading, &plan);
    match (result, bench.remove_configuration()) {
        (Ok(done), Ok(())) => Ok(done),
        (Err(failure), _) => Err(failure),
        // Burned and read back, or tried: the file is what is left.
        (Ok(done), Err(error)) => {
            bench.show(&format!("The file with the secrets could not be removed, remove it by hand: {error}\n"));
            Ok(done)
        }
    }
}

/// After a failed write, what may lie there is removed as well.
fn cleared(bench: &mut dyn Bench, failure: Failure) -> Failure {
    let _ = bench.remove_configuration();
    failure
}

fn compare_hashes(bench: &mut dyn Bench, order: &Order) -> Result<(), Failure> {
    let names = order.wanted.chip.key_hash_fuses();
    for ((name, hash), modulus) in names.iter().zip(&order.wanted.key_hashes).zip(&order.moduli) {
        let output = bench.key_hash(modulus)?;
        let said = output.lines().filter_map(|line| line.split_once("tegra-fuse format (big-endian): 0x"));
        let said: Vec<_> = said.map(|(_, digits)| digits.trim().to_ascii_lowercase()).collect();
        if said != [hex(hash)] {
            return Err(Failure::Hash(name));
        }
    }
    Ok(())
}

fn with_configuration(bench: &mut dyn Bench, order: &Order, reading: &Reading, plan: &Plan) -> Result<Done, Failure> {
    let secrets: Vec<&Secret> = plan.secrets().collect();
    let output = bench.run(Run::Test, order.fused)?;
    let shown = masked(&output, &secrets);
    bench.show(&shown);
    if let Some(line) = shown.lines().find(|line| says_error(line)) {
        return Err(Failure::Test(line.to_owned()));
    }
    if !order.burn {
        bench.show("Dry run: nothing was burned.\n");
        return Ok(Done::Tried);
    }
    let number = plan.chip_number.as_deref().ok_or(Failure::NoNumber)?;
    bench.log(&format!("before:\n{}", table::text(plan)))?;
    let typed = bench.ask("Type the chip number of the board on the bench: ")?;
    if typed.trim().trim_start_matches("0x").to_ascii_lowercase() != number {
        bench.log("not confirmed: another chip number\n")?;
        return Err(Failure::NotConfirmed);
    }
    if bench.ask(&format!("Type \"{}\": ", words(plan)))?.trim() != words(plan) {
        bench.log("not confirmed: other words\n")?;
        return Err(Failure::NotConfirmed);
    }
    // Between the first reading and now, somebody typed: the board may have been exchanged.
    if read(bench, plan.chip, order.fused)? != *reading {
        return Err(Failure::OtherBoard);
    }
    bench.log(&format!("burning begins: chip {number}\n"))?;
    let said = match bench.run(Run::Burn, order.fused) {
        Ok(output) => {
            bench.show(&masked(&output, &secrets));
            None
        }
        Err(error) => {
            let said = masked(&error.to_string(), &secrets);
            bench.show(&said);
            Some(said.trim_end().to_owned())
        }
    };
    let result = look_again(bench, order, plan, said);
    let line = match &result {
        Ok(_) => "burned, and read back as planned\n".to_owned(),
        Err(failure) => format!("{failure}\n"),
    };
    match bench.log(&line) {
        Err(error) if result.is_ok() => Err(Failure::Unsure(format!("it reads as planned, but the log failed: {error}"))),
        _ => result,
    }
}

/// Whether a line of the burning program says that fuses will not burn. Not every line with "failed" does: "File rcm_state open
/// failed" stands in each good run. What the board itself says is on its serial console and not here.
fn says_error(line: &str) -> bool {
    const ERRORS: [&str; 6] =
        ["fuse failed", "fuse: failed", "failed to burn", "could not write fuse", "trying to turn 1 into 0", "you can't"];
    let line = line.to_ascii_lowercase();
    ERRORS.iter().any(|error| line.contains(error))
}

/// Reads what became of the board, and says what is not as planned.
fn look_again(bench: &mut dyn Bench, order: &Order, plan: &Plan, said: Option<String>) -> Result<Done, Failure> {
    let unsure = |reason: String| match &said {
        Some(said) => Failure::Unsure(format!("{said}; then {reason}")),
        None => Failure::Unsure(reason),
    };
    bench
        .ask("Burning has ended. Put the board into recovery mode again, then press Enter: ")
        .map_err(|error| unsure(error.to_string()))?;
    let fused = Fused { signed: true, encrypted: order.fused.encrypted || order.wanted.secure_boot_key.is_some() };
    let reading = read(bench, plan.chip, fused).map_err(|failure| unsure(failure.to_string()))?;
    if reading.chip_number != plan.chip_number {
        return Err(unsure("another board answers".into()));
    }
    let differ: Vec<_> = plan.to_burn().filter(|row| !is_as_planned(row, &reading)).map(|row| row.fuse.name).collect();
    if !differ.is_empty() {
        return Err(Failure::NotAsBurned(differ));
    }
    match said {
        Some(said) => Err(Failure::Unsure(format!("what can be read is as planned, but the program said: {said}"))),
        None => Ok(Done::Burned),
    }
}

/// Whether a fuse reads as planned; one that cannot be read, a secret or a second key's hash, is taken as it was said.
fn is_as_planned(row: &Row, reading: &Reading) -> bool {
    let must = row.now.is_some() && row.fuse.content == Content::Open;
    match (&row.after, reading.fuses.get(row.fuse.name)) {
        (Value::Open(after), Some(Found::Open(found))) if row.fuse.name.ends_with("Hash") && row.fuse.size == 32 => {
            crate::plan::spellings(after).contains(found)
        }
        (Value::Open(after), Some(Found::Open(found))) => after == found,
        _ => !must,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::FakeBench;
    use crate::plan::tests::orin;
    use crate::reading::tests::NEW_ORIN;

    const NUMBER: &str = "80012344705DF1172C0000000D020080";

    fn order(burn: bool) -> Order {
        let fused = Fused { signed: false, encrypted: false };
        Order { wanted: orin(), moduli: vec![vec![9; 384]; 3], fused, burn }
    }

    fn bench() -> FakeBench {
        let fuses = NEW_ORIN.lines().filter_map(|line| line.split_once(": "));
        let fuses = fuses.filter(|(name, _)| crate::chip::kind(Jetson::Orin, name).is_some());
        FakeBench {
            fuses: fuses.map(|(name, digits)| (name.to_owned(), digits.to_owned())).collect(),
            chip_number: NUMBER.into(),
            answers: vec![NUMBER.into(), "burn 10 fuses for ever".into(), String::new()],
            hashes: (1..=3).map(|key| format!("tegra-fuse format (big-endian): 0x{}\n", hex(&[key; 64]))).collect(),
            ..FakeBench::default()
        }
    }

    #[test]
    fn a_dry_run_does_everything_but_burn() {
        let mut bench = bench();
        assert_eq!(carry_out(&mut bench, &order(false)), Ok(Done::Tried));
        assert_eq!(
            bench.steps,
            ["read", "key hash", "key hash", "key hash", "write configuration", "test", "remove configuration"]
        );
        assert!(bench.burned == 0 && bench.logged.is_empty());
    }

    #[test]
    fn a_board_is_burned_after_number_and_words_and_then_there_is_nothing_left_to_burn() {
        let mut bench = bench();
        assert_eq!(carry_out(&mut bench, &order(true)), Ok(Done::Burned));
        let log = bench.logged.clone();
        let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} is not in {log}"));
        assert!(at("before:") < at("burning begins") && at("burning begins") < at("read back as planned"));
        assert!(bench.configuration.is_none() && bench.burned == 1);
        bench.hashes = (1..=3).map(|key| format!("tegra-fuse format (big-endian): 0x{}", hex(&[key; 64]))).collect();
        assert_eq!(carry_out(&mut bench, &order(true)), Ok(Done::Nothing));
        assert_eq!(bench.burned, 1);
    }

    #[test]
    fn no_secret_is_shown_or_logged() {
        let mut bench = bench();
        carry_out(&mut bench, &order(true)).unwrap();
        for secret in order(true).wanted.secure_boot_key.iter().chain(&order(true).wanted.oem_key) {
            let digits = hex(secret.bytes());
            assert!(!bench.shown.contains(&digits[..8]) && !bench.logged.contains(&digits[..8]));
        }
        assert!(bench.shown.contains("BootSecurityInfo"));
    }

    #[test]
    fn wherever_it_fails_the_failure_says_whether_a_fuse_was_touched_and_the_file_with_the_secrets_is_gone() {
        let mut whole = bench();
        carry_out(&mut whole, &order(true)).unwrap();
        let burn = whole.steps.iter().position(|step| *step == "burn").unwrap();
        assert!(whole.steps.len() > 14, "{:?}", whole.steps);
        for at in 0..whole.steps.len() {
            let mut bench = FakeBench { fails_at: Some(at), ..bench() };
            let result = carry_out(&mut bench, &order(true));
            match (whole.steps[at], &result) {
                // All is burned by then; somebody is told to remove the file.
                ("remove configuration", Ok(Done::Burned)) => assert!(bench.shown.contains("remove it by hand")),
                (_, Err(Failure::Unsure(_) | Failure::NotAsBurned(_))) => assert!(at >= burn, "{at}: {result:?}"),
                (_, Err(_)) => assert!(at < burn && bench.burned == 0, "{at}: {result:?}"),
                (step, Ok(done)) => panic!("{step} failed, and it ended as {done:?}"),
            }
            if whole.steps[at] != "remove configuration" {
                assert!(bench.configuration.is_none(), "{at}: {result:?}");
            }
        }
    }

    #[test]
    fn another_number_or_other_words_burn_nothing() {
        for answers in
            [["80012344705df1172c0000000d020081", ""], ["", ""], [NUMBER, "burn"], [NUMBER, "burn 9 fuses for ever"]]
        {
            let mut bench = FakeBench { answers: answers.map(str::to_owned).to_vec(), ..bench() };
            assert_eq!(carry_out(&mut bench, &order(true)), Err(Failure::NotConfirmed));
            assert!(bench.burned == 0 && bench.logged.contains("not confirmed"));
        }
        let mut bench = FakeBench { chip_number: "short".into(), ..bench() };
        assert_eq!(carry_out(&mut bench, &order(true)), Err(Failure::NoNumber));
    }

    #[test]
    fn a_board_that_was_exchanged_while_somebody_typed_is_not_burned() {
        let mut bench = FakeBench { second_number: Some("80012344705df1172c0000000d020099".into()), ..bench() };
        assert_eq!(carry_out(&mut bench, &order(true)), Err(Failure::OtherBoard));
        assert_eq!(bench.burned, 0);
    }

    #[test]
    fn a_program_that_says_success_without_burning_is_not_believed() {
        for name in ["BootSecurityInfo", "SecurityMode", "PublicKeyHash"] {
            let mut bench = FakeBench { skips: Some(name), ..bench() };
            assert_eq!(carry_out(&mut bench, &order(true)), Err(Failure::NotAsBurned(vec![name])));
            assert!(bench.logged.contains(name));
        }
    }

    #[test]
    fn an_error_in_the_test_run_and_a_hash_that_differs_stop_it() {
        for output in [
            "E> FUSE: trying to turn 1 into 0",
            "OdmLock[0] has been set. You can't burn odm_reserved0 again.",
            "Fuse failed.",
        ] {
            let mut bench = FakeBench { output: output.to_owned(), ..bench() };
            assert_eq!(carry_out(&mut bench, &order(true)), Err(Failure::Test(output.to_owned())));
            assert_eq!(bench.burned, 0);
        }
        let output = "[   0.0101 ] File rcm_state open failed\n[   0.0101 ] ERROR: failed to read rcm_state".to_owned();
        assert_eq!(carry_out(&mut FakeBench { output, ..bench() }, &order(false)), Ok(Done::Tried));
        for second in [String::new(), format!("tegra-fuse format (big-endian): 0x{}", hex(&[9; 64]))] {
            let mut bench = bench();
            bench.hashes[1] = second;
            assert_eq!(carry_out(&mut bench, &order(true)), Err(Failure::Hash("PkcPubkeyHash1")));
            assert_eq!(bench.burned, 0);
        }
    }
}
