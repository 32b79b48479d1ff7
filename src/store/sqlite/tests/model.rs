//! The store against a model in memory: random events, evictions, ends and starts.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::store::sqlite::SyncPolicy;

/// What the store must hold.
#[derive(Default)]
struct Model {
    /// What was evicted and is possibly not deleted yet.
    pending: VecDeque<Trim>,
    records: BTreeMap<u64, Record<'static>>,
    floors: BTreeMap<Arc<str>, u64>,
    horizon: u64,
    sequence: u64,
    last_loss: u64,
    eras: Vec<(u64, u64)>,
    is_closed: bool,
    boot: u64,
    is_synced: bool,
}

impl Model {
    /// Returns what a new era begins with.
    fn open(&mut self, boot: u64, seconds: u64, is_synced: bool) {
        let first = self.sequence + 1;
        let number = self.eras.last().map_or(0, |era| era.0);
        self.eras.retain(|era| era.1 < first);
        self.eras.push((seconds.max(number + 1), first));
        if !self.is_closed && !self.is_synced && boot != self.boot {
            (self.sequence, self.last_loss) = (first, first);
        }
        (self.is_closed, self.boot, self.is_synced) = (false, boot, is_synced);
    }

    fn append(&mut self, records: &[Record<'static>], trim: Trim) {
        for record in records {
            self.sequence = record.sequence;
            self.records.insert(record.sequence, record.clone());
        }
        self.pending.push_back(trim);
        if records.is_empty() {
            self.apply_all();
        }
    }

    fn apply_all(&mut self) {
        while let Some(trim) = self.pending.pop_front() {
            self.apply(&trim);
        }
    }

    fn apply(&mut self, trim: &Trim) {
        for sequence in &trim.evicted {
            self.records.remove(sequence);
        }
        for sequence in &trim.ambiguous {
            if let Some(record) = self.records.get_mut(sequence) {
                record.finds_own_id = false;
            }
        }
        for (channel, floor) in &trim.floors {
            match floor {
                Some(floor) => _ = self.floors.insert(Arc::clone(channel), *floor),
                None => _ = self.floors.remove(channel),
            }
        }
        self.horizon = self.horizon.max(trim.horizon);
        self.last_loss = self.last_loss.max(trim.last_loss);
    }

    fn assert_holds(&mut self, opened: &Opened) {
        while !self.has_tables_of(opened) {
            let next = self.pending.pop_front().expect("the store holds something else");
            self.apply(&next);
        }
        self.pending.clear();
        let Attached { eras, sequence, .. } = &opened.attached;
        assert_eq!((eras, sequence), (&self.eras, &self.sequence));
    }

    fn has_tables_of(&self, opened: &Opened) -> bool {
        let floors: BTreeMap<_, _> = opened.attached.floors.iter().cloned().collect();
        let is_same = floors == self.floors
            && (opened.attached.horizon, opened.attached.last_loss) == (self.horizon, self.last_loss);
        is_same && opened.records.iter().eq(self.records.values())
    }
}

fn random_trim(random: &mut fastrand::Rng, newest: u64) -> Trim {
    let mut sequences = |most| -> Vec<u64> { (0..random.usize(..=most)).map(|_| random.u64(..=newest)).collect() };
    let (evicted, ambiguous) = (sequences(6), sequences(2));
    let mut floors = BTreeMap::new();
    for _ in 0..random.usize(..3) {
        let floor = random.bool().then(|| random.u64(..=newest));
        floors.insert(format!("channel {}", random.u8(..5)).into(), floor);
    }
    let last_loss = if random.u8(..4) == 0 { random.u64(..=newest) } else { 0 };
    Trim { evicted, ambiguous, floors, horizon: random.u64(..=newest), last_loss }
}

#[test]
fn a_store_holds_what_its_model_holds() {
    let rounds = env::var("MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(4_000) / 1_000;
    for _ in 0..rounds {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        run(&mut fastrand::Rng::with_seed(seed), 60);
    }
}

fn run(random: &mut fastrand::Rng, openings: usize) {
    let folder = Folder::new();
    let mut model = Model { is_closed: true, ..Model::default() };
    for _ in 0..openings {
        let policies = [SyncPolicy::Always, SyncPolicy::Every(Duration::from_millis(1)), SyncPolicy::Never];
        let policy = random.choice(policies).unwrap();
        let (boot, seconds) = (random.u64(..2), random.u64(..100));
        model.open(boot, seconds, policy == SyncPolicy::Always);
        // A small history has a small log, which is often full.
        let max_bytes = 1 << random.u32(10..20);
        let mut opened = try_open_with(&folder.sqlite().sync(policy), max_bytes, &boot.to_string(), seconds).unwrap();
        model.assert_holds(&opened);
        for _ in 0..random.usize(..8) {
            let count = random.u64(..40);
            let records = records(model.sequence + 1..=model.sequence + count);
            let trim = random_trim(random, model.sequence + count);
            opened.store.append(&records, trim.clone()).unwrap();
            model.append(&records, trim);
        }
        if random.bool() {
            let trim = random_trim(random, model.sequence);
            opened.store.close(trim.clone()).unwrap();
            model.append(&[], trim);
            model.is_closed = true;
        }
    }
}
