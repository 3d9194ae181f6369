//! Ends the streams that the nodes of an instance already have of a camera which was paused since.
//!
//! That nobody asks the camera for pictures for a paused node is not enough, because others may watch the same camera, and
//! that its stream is not opened any more ([`crate::worker`]) does not reach who has opened it before. An instance with a
//! second, unpaused node for the same camera loses that connection too and opens it again at once.

use crate::deployment::paused;
use crate::places::Places;
use crate::shared::Model;
use belvedere_frames::packet;
use belvedere_interfaces::channel::frames::Request;
use std::collections::BTreeSet;

/// An instance's camera node that is paused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pause {
    /// Application instance.
    pub instance: String,
    /// Camera node.
    pub node: String,
    /// What it would show.
    pub stream_id: String,
    /// How many streams of it were opened so far. One that was opened since the streams were ended, because a RESUME came
    /// and went between two looks, makes it another pause.
    pub opened: u64,
}

/// All that are paused. Pure.
pub fn pauses(model: &Model) -> BTreeSet<Pause> {
    let mut found = BTreeSet::new();
    for (id, known) in &model.instances {
        let Some(nodes) = known.nodes.as_ref().filter(|nodes| nodes.active) else { continue };
        let wanted = model.wanted(id);
        for camera in &nodes.application.cameras {
            let node = &camera.node.name;
            let signal = wanted.and_then(|wanted| wanted.signals.get(node).copied());
            if let Some(stream) = nodes.streams.get(node)
                && paused(camera.launch, signal)
            {
                let stream_id = stream.stream_id.clone();
                let opened = known.opened.get(node).copied().unwrap_or(0);
                found.insert(Pause { instance: id.clone(), node: node.clone(), stream_id, opened });
            }
        }
    }
    found
}

/// What was already done.
#[derive(Debug, Default)]
pub struct Pauses {
    done: BTreeSet<Pause>,
}

impl Pauses {
    /// Ends the streams of those that are newly paused. What does not succeed is tried again at the next call.
    pub fn follow(&mut self, places: &Places, now: &BTreeSet<Pause>) {
        self.done.retain(|pause| now.contains(pause));
        for pause in now {
            if self.done.contains(pause) {
                continue;
            }
            match withdraw(places, pause) {
                Ok(()) => {
                    log::info!("{}: camera node {} is paused", pause.instance, pause.node);
                    self.done.insert(pause.clone());
                }
                // Without the decoder there are no pictures either.
                Err(error) => log::debug!("{}: pause camera node {}: {error}", pause.instance, pause.node),
            }
        }
    }
}

fn withdraw(places: &Places, pause: &Pause) -> Result<(), packet::Error> {
    let channel = packet::connect(&places.frames)?;
    let request = Request::Withdraw { stream_id: pause.stream_id.clone(), owner: pause.instance.clone() };
    packet::send(&channel, &request, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(instance: &str) -> Pause {
        Pause { instance: instance.into(), node: "front".into(), stream_id: "stream-a".into(), opened: 0 }
    }

    /// Runtime D14: who had opened a camera before it was paused kept its pictures, as long as another watched it.
    #[test]
    fn streams_that_were_open_before_the_pause_are_ended_once_and_after_a_failure_again() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places { frames: directory.path().join("frames.sock"), ..Places::default() };
        let mut pauses = Pauses::default();
        let now = BTreeSet::from([pause("a")]);
        // The decoder does not run yet.
        pauses.follow(&places, &now);
        let frames = packet::listen(&places.frames).unwrap();
        let waiting = || {
            let mut polled = [rustix::event::PollFd::new(&frames, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut polled, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
        };
        let heard = || packet::receive::<Request>(&packet::accept(&frames).unwrap()).unwrap().0;
        let asked = |owner: &str| Request::Withdraw { stream_id: "stream-a".into(), owner: owner.into() };
        pauses.follow(&places, &now);
        assert_eq!(heard(), asked("a"));
        pauses.follow(&places, &now);
        assert!(!waiting(), "once is enough");
        // Another is paused; then the first is resumed and paused again.
        pauses.follow(&places, &BTreeSet::from([pause("b")]));
        assert_eq!(heard(), asked("b"));
        pauses.follow(&places, &now);
        assert_eq!(heard(), asked("a"));
        assert!(!waiting());
    }
}
