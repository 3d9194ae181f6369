use super::*;

struct Bytes(Vec<u8>);

impl Buffer for Bytes {
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let begin = offset as usize;
        into.copy_from_slice(self.0.get(begin..begin + into.len()).ok_or(MemoryError::TooShort)?);
        Ok(())
    }
}

fn open(stage: &mut Stage<Bytes>, client: u64, application: &str, started_us: i64) {
    assert!(stage.connected(client));
    let request = Request::Open { application_instance_id: application.into(), started_us };
    assert!(stage.packet(client, request, None).unwrap().is_none());
}

fn buffer(stage: &mut Stage<Bytes>, client: u64, number: u32, bytes: Vec<u8>) -> Result<Option<Event>, Refusal> {
    let request = Request::Buffer { buffer: number, bytes: bytes.len() as u64 };
    stage.packet(client, request, Some(Bytes(bytes)))
}

fn show(stream: &str, width: u32, height: u32) -> Request {
    Request::Show {
        stream_id: stream.into(),
        sequence: 7,
        buffer: 0,
        offset: 0,
        width,
        height,
        stride: width * 3,
        format: "bgr24".into(),
        rectangles: vec![[0.0, 0.0, 0.5, 0.5]],
        labels: vec![("text".into(), 0.1, 0.1)],
    }
}

#[test]
fn a_picture_is_taken_over_and_answered() {
    let mut stage = Stage::default();
    assert!(stage.take_changed(), "the idle screen has to be drawn once");
    open(&mut stage, 1, "a", 5);
    assert_eq!(stage.scene(), Scene::Waiting("a"));
    buffer(&mut stage, 1, 0, (0..12).collect()).unwrap();
    stage.take_changed();
    assert_eq!(stage.packet(1, show("camera", 2, 2), None).unwrap(), Some(Event::Shown { sequence: 7 }));
    assert!(stage.take_changed() && !stage.take_changed());
    let Scene::Pictures(pictures) = stage.scene() else { panic!() };
    assert_eq!(pictures[0].pixels, (0..12).collect::<Vec<u8>>());
    assert_eq!(pictures[0].labels.len(), 1);
}

#[test]
fn rows_with_padding_are_packed() {
    let mut stage = Stage::default();
    open(&mut stage, 1, "a", 5);
    buffer(&mut stage, 1, 0, (0..20).collect()).unwrap();
    let Request::Show { sequence, rectangles, labels, .. } = show("camera", 2, 2) else { panic!() };
    let request = Request::Show {
        stream_id: "camera".into(),
        sequence,
        buffer: 0,
        offset: 1,
        width: 2,
        height: 2,
        stride: 8,
        format: "bgr24".into(),
        rectangles,
        labels,
    };
    stage.packet(1, request, None).unwrap();
    let Scene::Pictures(pictures) = stage.scene() else { panic!() };
    assert_eq!(pictures[0].pixels, [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14]);
}

#[test]
fn the_application_that_started_last_owns_the_monitor() {
    let mut stage = Stage::default();
    open(&mut stage, 1, "old", 5);
    open(&mut stage, 2, "new", 6);
    for client in [1, 2] {
        buffer(&mut stage, client, 0, vec![client as u8; 12]).unwrap();
        // Both are answered, so that none waits.
        assert!(stage.packet(client, show("camera", 2, 2), None).unwrap().is_some());
    }
    let Scene::Pictures(pictures) = stage.scene() else { panic!() };
    assert_eq!((pictures.len(), pictures[0].pixels[0]), (1, 2));
    stage.take_changed();
    stage.gone(2);
    assert!(stage.take_changed());
    assert_eq!(stage.scene(), Scene::Waiting("old"));
    stage.packet(1, show("camera", 2, 2), None).unwrap();
    assert!(matches!(stage.scene(), Scene::Pictures(_)));
    open(&mut stage, 3, "newest", 9);
    assert_eq!(stage.scene(), Scene::Waiting("newest"));
    stage.gone(3);
    stage.gone(1);
    assert_eq!(stage.scene(), Scene::Empty);
}

#[test]
fn streams_of_all_connections_of_an_application_are_shown_by_name() {
    let mut stage = Stage::default();
    for (client, stream) in [(1, "b"), (2, "a")] {
        open(&mut stage, client, "app", 5);
        buffer(&mut stage, client, 0, vec![client as u8; 12]).unwrap();
        stage.packet(client, show(stream, 2, 2), None).unwrap();
    }
    let Scene::Pictures(pictures) = stage.scene() else { panic!() };
    assert_eq!(pictures.iter().map(|picture| picture.pixels[0]).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn packets_out_of_order_are_refused() {
    let mut stage = Stage::default();
    assert!(stage.connected(1));
    assert!(matches!(stage.packet(1, show("camera", 2, 2), None), Err(Refusal::Order)));
    assert!(matches!(buffer(&mut stage, 1, 0, vec![]), Err(Refusal::Order)));
    open(&mut stage, 2, "a", 1);
    let again = Request::Open { application_instance_id: "b".into(), started_us: 9 };
    assert!(matches!(stage.packet(2, again, None), Err(Refusal::Order)));
    assert!(matches!(stage.packet(2, show("camera", 2, 2), None), Err(Refusal::Bounds(_))), "no such buffer yet");
    let request = Request::Buffer { buffer: 0, bytes: 0 };
    assert!(matches!(stage.packet(2, request, None), Err(Refusal::Descriptors)));
    assert!(matches!(stage.packet(2, show("camera", 2, 2), Some(Bytes(vec![]))), Err(Refusal::Descriptors)));
}

#[test]
fn what_is_out_of_bounds_is_refused_and_the_limit_itself_is_not() {
    type Change = fn(&mut Show);
    let good = || Show {
        size: Size { width: 4, height: 3 },
        offset: 8,
        stride: 16,
        rectangles: vec![[0.0; 4]; MAXIMUM_MARKS],
        labels: vec![("x".repeat(MAXIMUM_LABEL), 0.0, 0.0); MAXIMUM_MARKS],
    };
    // 8 + 2 × 16 + 12
    check(&good(), 52).unwrap();
    assert!(check(&good(), 51).is_err());
    let bad: [Change; 11] = [
        |show| show.size.width = 0,
        |show| show.size.height = 0,
        |show| show.size.width = MAXIMUM_SIDE + 1,
        |show| show.size.height = MAXIMUM_SIDE + 1,
        |show| show.stride = 11,
        |show| show.offset = u64::MAX,
        |show| show.rectangles.push([0.0; 4]),
        |show| show.rectangles[0][2] = f32::NAN,
        |show| show.labels.push((String::new(), 0.0, 0.0)),
        |show| show.labels[0].0.push('x'),
        |show| show.labels[0].1 = f32::INFINITY,
    ];
    for (index, change) in bad.into_iter().enumerate() {
        let mut show = good();
        change(&mut show);
        assert!(check(&show, 52).is_err(), "case {index}");
    }
}

#[test]
fn streams_buffers_and_clients_have_a_bound() {
    let mut stage = Stage::default();
    open(&mut stage, 1, "a", 1);
    buffer(&mut stage, 1, 0, vec![0; 12]).unwrap();
    assert!(buffer(&mut stage, 1, BUFFERS as u32, vec![0; 12]).is_err());
    for index in 0..BUFFERS {
        stage.packet(1, show(&format!("stream {index}"), 2, 2), None).unwrap();
    }
    assert!(stage.packet(1, show("one more", 2, 2), None).is_err());
    stage.packet(1, show("stream 0", 2, 2), None).unwrap();
    for client in 2..=CLIENTS.in_all + UNOPENED as u64 {
        assert!(stage.connected(client));
    }
    assert!(!stage.connected(1000));
}

#[test]
fn runtime_d3_one_application_cannot_take_all_connections_and_is_told_so() {
    let mut stage = Stage::default();
    let mut number = 0;
    let mut try_open = |stage: &mut Stage<Bytes>, application: &str| {
        number += 1;
        assert!(stage.connected(number));
        let request = Request::Open { application_instance_id: application.into(), started_us: 1 };
        let result = stage.packet(number, request, None).map(|_| number);
        if result.is_err() {
            stage.gone(number);
        }
        result
    };
    let first = try_open(&mut stage, "greedy").unwrap();
    for _ in 1..CLIENTS.burst {
        try_open(&mut stage, "greedy").unwrap();
    }
    let refusal = try_open(&mut stage, "greedy").unwrap_err();
    assert!(matches!(&refusal, Refusal::TooMany(words) if words.contains("fewer processes")), "{refusal}");
    try_open(&mut stage, "other").unwrap();
    stage.gone(first);
    try_open(&mut stage, "greedy").unwrap();
}

#[test]
fn applications_tried_who_has_the_monitor_is_known() {
    let mut stage = Stage::<Bytes>::default();
    assert!(stage.connected(1));
    assert_eq!(stage.owns(1), None);
    open(&mut stage, 2, "old", 5);
    assert_eq!(stage.owns(2), Some(true));
    open(&mut stage, 3, "new", 6);
    assert_eq!((stage.owns(2), stage.owns(3)), (Some(false), Some(true)));
    stage.gone(3);
    assert_eq!(stage.owns(2), Some(true));
}

#[test]
fn a_buffer_that_fails_to_read_is_a_refusal() {
    let mut stage = Stage::default();
    open(&mut stage, 1, "a", 1);
    // States more than it holds.
    let request = Request::Buffer { buffer: 0, bytes: 12 };
    stage.packet(1, request, Some(Bytes(vec![0; 5]))).unwrap();
    assert!(matches!(stage.packet(1, show("camera", 2, 2), None), Err(Refusal::Memory(MemoryError::TooShort))));
    assert_eq!(stage.scene(), Scene::Waiting("a"));
}

#[test]
fn pictures_of_all_connections_have_one_bound() {
    let mut stage = Stage::default();
    let mut taken = 0;
    for client in 1..=3 {
        open(&mut stage, client, "a", 1);
        buffer(&mut stage, client, 0, vec![0; 4096 * 4096 * 3]).unwrap();
        taken += usize::from(stage.packet(client, show("camera", 4096, 4096), None).is_ok());
    }
    assert_eq!(taken, 2, "48 MB each");
    // One that is replaced does not count twice.
    stage.packet(1, show("camera", 4096, 4096), None).unwrap();
}
