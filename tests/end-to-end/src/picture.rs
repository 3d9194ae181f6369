//! Looks at the monitor as a person would, and compares what it shows with what the camera really filmed.

use crate::{Scene, Trouble};
use belvedere_picture::{Picture, Report, Truth, check};
use std::path::Path;
use std::time::{Duration, Instant};

/// What was seen on the monitor over a while.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Different frames of the camera that were judged.
    pub frames: usize,
    /// Words in them.
    pub words: usize,
    /// Words with a box of their own.
    pub found: usize,
    /// Boxes where no word is.
    pub false_boxes: usize,
    /// Seconds from one new picture to the next.
    pub intervals: Vec<f64>,
    /// Bytes that the appliance read from its disk meanwhile, and wrote: pictures never go there.
    pub disk: [u64; 2],
}

impl Verdict {
    /// At least 90 % of the words found, and no false box.
    pub fn right(&self) -> bool {
        self.words > 0 && self.found as f64 >= check::REQUIRED_RECALL * self.words as f64 && self.false_boxes == 0
    }

    fn add(&mut self, report: &Report) {
        self.frames += 1;
        self.words += report.words;
        self.found += report.found;
        self.false_boxes += report.false_boxes.len();
    }

    /// Median of the intervals, seconds; infinite when there is none.
    pub fn median_interval(&self) -> f64 {
        let mut sorted = self.intervals.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} frames: {} of {} words have their box ({:.1} %), {} false boxes; a new picture every {:.1} s (median; longest {:.1} s); \
             disk: {} kB read, {} kB written",
            self.frames,
            self.found,
            self.words,
            100.0 * self.found as f64 / self.words.max(1) as f64,
            self.false_boxes,
            self.median_interval(),
            self.intervals.iter().copied().fold(0.0, f64::max),
            self.disk[0] / 1000,
            self.disk[1] / 1000,
        )
    }
}

/// One look: the judged frame, or why it cannot be judged (no camera on the monitor, for instance).
///
/// # Errors
/// When the monitor cannot be photographed or the truth cannot be read.
pub fn look(scene: &mut Scene, png: &Path, truth: &Truth) -> Result<Result<Report, String>, Trouble> {
    let aside = png.with_extension("next.png");
    scene.appliance()?.screenshot(&aside).map_err(|error| Trouble::new("photographing the monitor", error))?;
    let picture = Picture::read(&aside).map_err(|error| Trouble::new("reading the photograph", error))?;
    let report = check(&picture, truth).map_err(|error| error.to_string());
    std::fs::rename(&aside, png).map_err(|error| Trouble::new("keeping the photograph", error))?;
    Ok(report)
}

/// What is right for the scene's camera.
///
/// # Errors
/// When the document cannot be read.
pub fn truth(scene: &Scene) -> Result<Truth, Trouble> {
    Truth::read(&scene.truth()).map_err(|error| Trouble::new("reading the camera's truth", error))
}

/// From fewer frames nothing follows.
const ENOUGH: usize = 3;

/// Watches the monitor for `time`, judging every new frame once.
///
/// # Errors
/// When the monitor cannot be photographed.
pub fn watch(scene: &mut Scene, png: &Path, time: Duration) -> Result<Verdict, Trouble> {
    let truth = truth(scene)?;
    let mut verdict = Verdict::default();
    let (mut last, mut last_at) = (None, None::<Instant>);
    let disk =
        |scene: &mut Scene| scene.appliance()?.disk_bytes().map_err(|error| Trouble::new("asking for the disk", error));
    let before = disk(scene)?;
    let begun = Instant::now();
    // Longer, where a machine under load shows hardly a picture.
    while begun.elapsed() < time || (verdict.frames < ENOUGH && begun.elapsed() < 3 * time) {
        if let Ok(report) = look(scene, png, &truth)?
            && last != Some(report.frame)
        {
            let now = Instant::now();
            if let Some(before) = last_at.replace(now) {
                verdict.intervals.push((now - before).as_secs_f64());
            }
            last = Some(report.frame);
            verdict.add(&report);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let after = disk(scene)?;
    verdict.disk = [after[0] - before[0], after[1] - before[1]];
    Ok(verdict)
}

/// How long a monitor that is right is watched.
const WATCH: Duration = Duration::from_secs(10);

/// Waits until the monitor shows a frame with the right boxes, then watches for 10 s: the whole must be right.
///
/// # Errors
/// When no right picture comes within `timeout`, or what follows is not right.
pub fn wait_right(scene: &mut Scene, png: &Path, timeout: Duration) -> Result<Verdict, Trouble> {
    let truth = truth(scene)?;
    let deadline = Instant::now() + timeout;
    let mut seen;
    loop {
        seen = match look(scene, png, &truth)? {
            Ok(report) if report.passed() => break,
            Ok(report) => format!(
                "frame {}: {} of {} words, {} false boxes",
                report.frame,
                report.found,
                report.words,
                report.false_boxes.len()
            ),
            Err(why) => why,
        };
        scene.service.check()?;
        if Instant::now() > deadline {
            return Err(Trouble::new(
                "waiting for the right picture",
                format!("nothing within {} s; last seen: {seen} ({})", timeout.as_secs(), png.display()),
            ));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let verdict = watch(scene, png, WATCH)?;
    if verdict.right() && verdict.frames >= ENOUGH {
        return Ok(verdict);
    }
    Err(Trouble::new("judging the monitor", format!("{verdict} ({})", png.display())))
}

/// Waits until the monitor shows a frame that differs from what it showed at first, and then another: pictures move
/// again; then watches as [`wait_right`] does.
///
/// # Errors
/// When nothing moves within `timeout`, or what follows is not right.
pub fn wait_new(scene: &mut Scene, png: &Path, timeout: Duration) -> Result<Verdict, Trouble> {
    let truth = truth(scene)?;
    let deadline = Instant::now() + timeout;
    let mut frames = Vec::new();
    while frames.len() < 3 {
        if let Ok(report) = look(scene, png, &truth)?
            && !frames.contains(&report.frame)
        {
            frames.push(report.frame);
        }
        if Instant::now() > deadline {
            return Err(Trouble::new(
                "waiting for new pictures",
                format!("frames seen within {} s: {frames:?} ({})", timeout.as_secs(), png.display()),
            ));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    wait_right(scene, png, deadline.saturating_duration_since(Instant::now()))
}
