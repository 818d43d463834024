//! Memory with limits, and an inbox that checks how it is used.

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use umqtt::{
    memory::{Inbox, List, Memory, Tag},
    session::{self, Request},
};

/// Bytes that the script keeps; the count tells whether the engine still holds on to them.
pub type Text = Rc<[u8]>;

pub fn text(text: impl AsRef<[u8]>) -> Text {
    text.as_ref().into()
}

/// What the memory has room for.
#[derive(Clone, Default)]
pub struct Room {
    /// Bytes of the largest payload.
    pub payload: Rc<Cell<usize>>,
    /// Entries of a list.
    pub entries: Rc<Cell<usize>>,
}

pub struct Heap;

impl Memory for Heap {
    type Bytes = Text;
    type ReceiveBuffer = Box<[u8]>;
    type TransmitBuffer = Box<[u8]>;
    type Received = Entries<session::Received>;
    type Requests = Entries<Option<Request<Text>>>;
    type Inbox = Queue;
}

pub struct Entries<T>(Vec<T>, Room);

impl<T> Entries<T> {
    pub fn new(room: &Room) -> Self {
        Entries(Vec::new(), room.clone())
    }
}

impl<T> List<T> for Entries<T> {
    fn entries(&self) -> &[T] {
        &self.0
    }

    fn entries_mut(&mut self) -> &mut [T] {
        &mut self.0
    }

    fn reserve(&mut self, room: usize) -> bool {
        room <= self.1.entries.get()
    }

    fn push(&mut self, entry: T) -> Result<(), T> {
        if self.0.len() >= self.1.entries.get() {
            return Err(entry);
        }
        self.0.push(entry);
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

struct Incoming {
    topic: Vec<u8>,
    payload: Vec<u8>,
    tag: Option<Tag>,
}

pub struct Queue(VecDeque<Incoming>, Room);

impl Queue {
    pub fn new(room: &Room) -> Self {
        Queue(VecDeque::new(), room.clone())
    }

    fn begun(&mut self) -> &mut Incoming {
        let message = self.0.back_mut().expect("no message was begun");
        assert!(message.tag.is_none(), "the message is whole");
        message
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Topic and payload of the oldest message.
    pub fn oldest(&self) -> (String, Vec<u8>) {
        let message = &self.0[0];
        let topic = String::from_utf8(message.topic.clone()).unwrap();
        (topic, message.payload.clone())
    }
}

impl Inbox for Queue {
    fn begin(&mut self, topic: usize, known: Option<&[u8]>, payload: usize) -> bool {
        assert!(known.is_none_or(|known| known.len() == topic));
        let whole = self.0.back().is_none_or(|message| message.tag.is_some());
        assert!(whole, "the message before is not whole");
        if payload > self.1.payload.get() {
            return false;
        }
        self.0.push_back(Incoming {
            topic: vec![0; topic],
            payload: vec![0; payload],
            tag: None,
        });
        true
    }

    fn topic(&mut self) -> &mut [u8] {
        &mut self.begun().topic
    }

    fn payload(&mut self) -> &mut [u8] {
        &mut self.begun().payload
    }

    fn finish(&mut self, tag: Tag) {
        self.begun().tag = Some(tag);
    }

    fn abandon(&mut self) {
        self.begun();
        self.0.pop_back();
    }

    fn first(&self) -> Option<&Tag> {
        self.0.front()?.tag.as_ref()
    }

    fn pop(&mut self) {
        let message = self.0.pop_front().expect("the inbox is empty");
        assert!(message.tag.is_some(), "the message is not whole");
    }

    fn keep(&mut self, n: usize) {
        self.0.truncate(n);
    }
}
