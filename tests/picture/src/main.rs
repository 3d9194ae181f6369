//! `belvedere-picture`: whether a captured picture of the monitor is right.

use belvedere_picture::{Picture, Report, Truth, check, check::REQUIRED_RECALL};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Judges captured pictures of the virtual appliance's monitor.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares the boxes in pictures with the words that the camera's frame really holds.
    ///
    /// Ends 0 when at least 90 % of the words have a box of their own (intersection over union at least 0.5) and no box
    /// stands where no word is; 1 when not; 2 when a picture cannot be judged, as when it does not show the camera.
    Check {
        /// A PNG file, as QMP's screendump writes it; may be given several times, and the words are then summed up.
        #[arg(long, required = true)]
        picture: Vec<PathBuf>,
        /// The truth document of samples/camera.
        #[arg(long)]
        truth: PathBuf,
        /// One JSON object per picture instead of text.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Command::Check { picture, truth, json } = Arguments::parse().command;
    let judged = Truth::read(&truth)
        .and_then(|truth| picture.iter().map(|path| check(&Picture::read(path)?, &truth)).collect::<Result<Vec<_>, _>>());
    let reports = match judged {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("belvedere-picture: {error}");
            return ExitCode::from(2);
        }
    };
    for report in &reports {
        if json {
            println!("{}", serde_json::to_string(report).unwrap_or_default());
        } else {
            print(report);
        }
    }
    let (words, found) = reports.iter().fold((0, 0), |(words, found), report| (words + report.words, found + report.found));
    let false_boxes: usize = reports.iter().map(|report| report.false_boxes.len()).sum();
    let recall = found as f64 / words.max(1) as f64;
    if !json && reports.len() > 1 {
        println!("all: {found} of {words} words ({:.1} %), {false_boxes} false boxes", recall * 100.0);
    }
    if recall >= REQUIRED_RECALL && false_boxes == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn print(report: &Report) {
    println!(
        "frame {}: {} of {} words found ({:.0} %, mean overlap {:.2}), {} boxes, {} of them false",
        report.frame,
        report.found,
        report.words,
        report.recall * 100.0,
        report.mean_overlap,
        report.boxes,
        report.false_boxes.len()
    );
    for missed in &report.missed {
        println!("  missed {:?}, best overlap {:.2}", missed.text, missed.overlap);
    }
    for found in &report.false_boxes {
        println!("  false box at {:?}: {}", found.edges, found.why);
    }
}
