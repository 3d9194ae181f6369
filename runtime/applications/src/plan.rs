//! What to do about one application instance. Pure: the decision, apart from its execution in `worker`.

/// What the service wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of the deployment document.
    pub sha256: String,
    /// Whether it should run, or only be there.
    pub run: bool,
}

/// What is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// The deployment that is installed, whole.
    pub installed: Option<String>,
    /// The deployment whose containers are supervised.
    pub running: Option<String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Download, verify and unpack everything of this deployment; the running one goes on meanwhile.
    Install(String),
    /// End the containers.
    Stop,
    /// Supervise the containers of this deployment.
    Start(String),
    /// Remove everything: storage, logs, packages that nobody else uses.
    Remove,
}

/// The steps from `actual` to `wanted`, in order. `None` is an instance that is not wanted any more.
pub fn plan(wanted: Option<&Wanted>, actual: &Actual) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(wanted) = wanted else {
        if actual.running.is_some() {
            steps.push(Step::Stop);
        }
        steps.push(Step::Remove);
        return steps;
    };
    if actual.installed.as_deref() != Some(&wanted.sha256) {
        steps.push(Step::Install(wanted.sha256.clone()));
    }
    let right_one_runs = wanted.run && actual.running.as_deref() == Some(&wanted.sha256);
    if actual.running.is_some() && !right_one_runs {
        steps.push(Step::Stop);
    }
    if wanted.run && !right_one_runs {
        steps.push(Step::Start(wanted.sha256.clone()));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(sha256: &str, run: bool) -> Wanted {
        Wanted { sha256: sha256.into(), run }
    }
    fn actual(installed: &str, running: &str) -> Actual {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Actual { installed: some(installed), running: some(running) }
    }

    /// Carries steps out on a model, as the worker does on the world.
    fn apply(mut actual: Actual, steps: &[Step]) -> Actual {
        for step in steps {
            match step {
                Step::Install(sha256) => actual.installed = Some(sha256.clone()),
                Step::Stop => actual.running = None,
                Step::Start(sha256) => {
                    assert_eq!(actual.installed.as_ref(), Some(sha256), "nothing is started before it is installed");
                    assert_eq!(actual.running, None, "nothing is started twice");
                    actual.running = Some(sha256.clone());
                }
                Step::Remove => {
                    assert_eq!(actual.running, None, "nothing is removed while it runs");
                    actual = Actual::default();
                }
            }
        }
        actual
    }

    #[test]
    fn every_plan_reaches_what_is_wanted_and_then_rests() {
        for installed in ["", "a", "b"] {
            for running in ["", "a", "b"] {
                for want in [None, Some(wanted("a", true)), Some(wanted("a", false))] {
                    let end = apply(actual(installed, running), &plan(want.as_ref(), &actual(installed, running)));
                    match &want {
                        None => assert_eq!(end, Actual::default()),
                        Some(want) => {
                            assert_eq!(end.installed.as_deref(), Some("a"));
                            assert_eq!(end.running.is_some(), want.run);
                            assert_eq!(plan(Some(want), &end), [], "{installed} {running} {want:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_update_is_downloaded_before_the_old_one_stops() {
        let steps = plan(Some(&wanted("b", true)), &actual("a", "a"));
        assert_eq!(steps, [Step::Install("b".into()), Step::Stop, Step::Start("b".into())]);
    }
}
