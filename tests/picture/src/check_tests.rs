//! Pictures are made by the display itself, so that what it draws and what is looked for cannot drift apart.

use super::*;
use belvedere_display::compose::{self, Canvas};

const WORDS: [[f32; 4]; 3] = [[10.0, 10.0, 60.0, 26.0], [90.0, 12.0, 150.0, 28.0], [30.0, 50.0, 100.0, 66.0]];

fn truth() -> Truth {
    let words: Vec<String> =
        WORDS.iter().enumerate().map(|(index, edges)| format!(r#"{{"text": "word {index}", "box": {edges:?}}}"#)).collect();
    let frames: Vec<String> = (0..4u32)
        .map(|number| format!(r#"{{"number": {number}, "cells": "10{number:02b}10", "words": [{}]}}"#, words.join(",")))
        .collect();
    Truth::parse(&format!(
        r#"{{"width": 160, "height": 96, "code": {{"top": 90, "height": 6, "cells": 6}}, "frames": [{}]}}"#,
        frames.join(",")
    ))
    .unwrap()
}

fn camera(number: u32, boxes: &[[f32; 4]]) -> compose::Picture {
    let size = Size { width: 160, height: 96 };
    let cells = format!("10{number:02b}10").into_bytes();
    let pixels = (0..96u32)
        .flat_map(|y| (0..160u32).map(move |x| (x, y)))
        .flat_map(|(x, y)| match y {
            90.. => [if cells[(x * 6 / 160) as usize] == b'1' { 230 } else { 25 }; 3],
            _ => [200, 190, 180],
        })
        .collect();
    compose::Picture {
        size,
        pixels,
        rectangles: boxes.iter().map(|[l, t, r, b]| [l / 160.0, t / 96.0, r / 160.0, b / 96.0]).collect(),
        labels: boxes.iter().map(|[l, t, ..]| ("text 97 %".into(), l / 160.0, t / 96.0)).collect(),
    }
}

fn monitor(pictures: &[&compose::Picture]) -> Picture {
    let size = Size { width: 640, height: 400 };
    let stride = size.width as usize * 4;
    let mut bytes = vec![0; stride * size.height as usize];
    compose::compose(&mut Canvas { size, stride, pixels: &mut bytes }, pictures);
    let pixels = bytes.chunks_exact(4).map(|pixel| u32::from_le_bytes(pixel.try_into().unwrap())).collect();
    Picture { size, pixels }
}

fn judge(boxes: &[[f32; 4]]) -> Report {
    check(&monitor(&[&camera(2, boxes)]), &truth()).unwrap()
}

#[test]
fn a_box_on_every_word_is_right() {
    let report = judge(&WORDS);
    assert!(report.passed(), "{report:?}");
    assert_eq!((report.frame, report.words, report.found, report.boxes), (2, 3, 3, 3));
    assert!(report.mean_overlap > 0.99);
}

#[test]
fn a_missing_box_is_told() {
    let report = judge(&WORDS[..2]);
    assert!(!report.passed());
    assert_eq!((report.found, report.missed[0].text.as_str()), (2, "word 2"));
    assert!(report.false_boxes.is_empty());
    assert!(!judge(&[]).passed());
}

#[test]
fn a_box_where_no_word_is_is_told() {
    let report = judge(&[WORDS[0], WORDS[1], WORDS[2], [120.0, 70.0, 150.0, 85.0]]);
    assert!(!report.passed());
    assert_eq!((report.recall, report.false_boxes.len(), report.false_boxes[0].why), (1.0, 1, "no word"));
}

#[test]
fn a_badly_placed_box_is_a_missed_word() {
    let [left, top, right, bottom] = WORDS[0];
    let report = judge(&[[left + 15.0, top + 5.0, right + 15.0, bottom + 5.0], WORDS[1], WORDS[2]]);
    assert!(!report.passed());
    assert_eq!((report.found, report.missed.len()), (2, 1));
    assert!(report.missed[0].overlap > 0.2 && report.missed[0].overlap < 0.5);
}

#[test]
fn one_box_around_two_words_is_not_two() {
    let report = judge(&[[10.0, 10.0, 150.0, 28.0], WORDS[2]]);
    assert!(!report.passed());
    assert!(report.found < 3);
}

#[test]
fn a_second_box_on_a_word_and_boxes_that_touch_are_told() {
    let [left, top, right, bottom] = WORDS[0];
    // Inside the other, without touching it.
    let report = judge(&[WORDS[0], WORDS[1], WORDS[2], [left + 3.0, top + 2.0, right - 3.0, bottom - 2.0]]);
    assert_eq!(report.false_boxes[0].why, "second box on a word");
    let report = judge(&[WORDS[0], WORDS[1], WORDS[2], [left + 20.0, top + 5.0, right + 10.0, bottom + 5.0]]);
    assert!(report.false_boxes.iter().any(|found| found.why == "not one box"), "{report:?}");
    assert!(!report.passed());
}

#[test]
fn the_boxes_of_another_frame_are_not_right_for_this_one() {
    let moved: Vec<[f32; 4]> = WORDS.iter().map(|[l, t, r, b]| [l + 25.0, t + 14.0, r + 25.0, b + 14.0]).collect();
    assert!(!judge(&moved).passed());
}

#[test]
fn the_camera_is_found_among_other_tiles() {
    let (other, camera) = (camera_without_code(), camera(3, &WORDS));
    for pictures in [vec![&other, &camera], vec![&camera, &other, &other], vec![&other, &other, &other, &camera]] {
        let report = check(&monitor(&pictures), &truth()).unwrap();
        assert!(report.passed(), "{report:?}");
        assert_eq!(report.frame, 3);
    }
}

fn camera_without_code() -> compose::Picture {
    let mut picture = camera(0, &[[0.0, 0.0, 160.0, 96.0]]);
    picture.pixels.fill(99);
    picture
}

#[test]
fn a_monitor_without_the_camera_is_an_error() {
    assert!(matches!(check(&monitor(&[&camera_without_code()]), &truth()), Err(Error::NoFrame)));
    let empty = Picture { size: Size { width: 640, height: 400 }, pixels: vec![0; 640 * 400] };
    assert!(matches!(check(&empty, &truth()), Err(Error::NoFrame)));
    let tiny = Picture { size: Size { width: 1, height: 1 }, pixels: vec![0] };
    assert!(matches!(check(&tiny, &truth()), Err(Error::NoFrame)));
}

#[test]
fn documents_that_cannot_tell_frames_apart_are_refused() {
    let document = |cells: &str| {
        format!(
            r#"{{"width": 8, "height": 8, "code": {{"top": 6, "height": 2, "cells": 2}}, "frames": [
            {{"number": 0, "cells": "10", "words": [{{"text": "a", "box": [0, 0, 1, 1]}}]}},
            {{"number": 1, "cells": "{cells}", "words": [{{"text": "a", "box": [0, 0, 1, 1]}}]}}]}}"#
        )
    };
    assert!(Truth::parse(&document("01")).is_ok());
    assert!(Truth::parse(&document("10")).is_err());
    assert!(Truth::parse(&document("101")).is_err());
}
