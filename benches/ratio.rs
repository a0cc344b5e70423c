//! Every figure as a share of the raw disk's, in one table: `cargo bench --bench ratio`.
//! What the columns mean: README.md in this directory.

#![forbid(unsafe_code)]

use kontiki_bench::{
    appends::{Appends, IN_FLIGHT, SEQUENTIAL, UNCOMPACTED, WAITING, WAITING_LOGS, Work},
    arguments::Arguments,
    commits::{self, Cluster},
    device::Device,
    place,
    raw::RawDisk,
    rounds::{self, Contender, Measured, ROUNDS},
    table,
};
use tempfile::TempDir;

fn main() {
    let bench = Bench {
        arguments: Arguments::parse_or_exit("ratio"),
        place: place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR")),
    };
    let device = Device::of(bench.place.path())
        .inspect_err(|error| eprintln!("the device's counters are left out: {error}"))
        .ok();
    println!("medians of {ROUNDS} rounds of {:?} each, range in brackets\n", bench.arguments.round);
    table::print_contest_head();
    for work in SEQUENTIAL.into_iter().chain(UNCOMPACTED).chain(WAITING) {
        bench.append(work, device.as_ref());
    }
    bench.append(IN_FLIGHT[0], device.as_ref());
    bench.many_logs("128 B, 1024 in flight, logs", IN_FLIGHT, device.as_ref());
    bench.many_logs("128 B, 256 waiting, logs", WAITING_LOGS, device.as_ref());
    for in_flight in commits::IN_FLIGHT {
        bench.commit(in_flight, device.as_ref());
    }
}

struct Bench {
    arguments: Arguments,
    place: TempDir,
}

impl Bench {
    fn append(&self, work: Work, device: Option<&Device>) {
        let name = format!("append {}", work.name);
        if !self.arguments.wants(&name) {
            return;
        }
        let row = place::row(&self.place);
        let appends = Appends::create(row.path(), work).expect("a fresh directory");
        let mut raw = RawDisk::create(row.path(), work.group_bytes()).expect("room for 64 MiB");
        let contenders = [appends.contender(), raw.contender()];
        let all = self.measure(&name, work.group_entries(), contenders, device);
        rounds::check(&all, work.group_bytes(), 1);
    }

    /// The same load over ever more logs of one stream: what many cost beside one.
    fn many_logs(&self, name: &str, works: [Work; 3], device: Option<&Device>) {
        let name = format!("append {name}");
        if !self.arguments.wants(&name) {
            return;
        }
        let row = place::row(&self.place);
        let appends = works.map(|work| Appends::create(row.path(), work).expect("a directory"));
        let [one, hundred, many] = &appends;
        let mut raw = RawDisk::create(row.path(), works[0].group_bytes()).expect("room for 64 MiB");
        let contenders = [
            Contender::new("1 log", |groups, latencies| one.run(groups, latencies)),
            Contender::new("100 logs", |groups, latencies| hundred.run(groups, latencies)),
            Contender::new("10,000 logs", |groups, latencies| many.run(groups, latencies)),
            raw.contender(),
        ];
        let all = self.measure(&name, works[0].group_entries(), contenders, device);
        rounds::check(&all, works[0].group_bytes(), 1);
    }

    /// The cluster is a new one each time: a log that the last work made long would weigh on the next.
    fn commit(&self, in_flight: usize, device: Option<&Device>) {
        let name = format!("commit, {in_flight} in flight");
        if !self.arguments.wants(&name) {
            return;
        }
        let row = place::row(&self.place);
        let cluster = Cluster::start(row.path()).expect("three nodes");
        let mut raw =
            RawDisk::create(row.path(), commits::group_bytes(in_flight)).expect("room for 64 MiB");
        let contenders = [cluster.contender(in_flight), raw.contender()];
        let all = self.measure(&name, in_flight, contenders, device);
        rounds::check(&all, commits::group_bytes(in_flight), commits::COPIES);
    }

    fn measure<const COUNT: usize>(
        &self,
        name: &str,
        group_entries: usize,
        mut contenders: [Contender<'_>; COUNT],
        device: Option<&Device>,
    ) -> Vec<Measured> {
        let all = rounds::measure(&mut contenders, self.arguments.round, device);
        table::print_contest(name, group_entries, &all);
        all
    }
}
