//! A full store into the ClickHouse engine until all is inserted, and beside it, in the same run, a bare loop that inserts
//! the same rows in the same format, compression and block size, one insert after the other on one connection.
//!
//! `cargo bench --bench drain_clickhouse -- [--events N] [--runs R] [--dir DIR]`; N is 200,000 (1,000,000 with `--long`)
//! and R is 3 by default. `CLICKHOUSE_URL` with `_USER` and `_PASSWORD` names an engine that runs already.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use biogate::forward::clickhouse::{Settings, schema};

mod rig;

use rig::backlog::Backlog;
use rig::servers::Server;
use rig::{Arguments, Cost, cpu, median};

/// Rows of an insert: the destination's usual batch.
const BLOCK_ROWS: u64 = 8_192;
/// Blocks that the bare loop inserts again and again, each time under a new token.
const BLOCKS: u64 = 12;
/// The destination's level.
const ZSTD_LEVEL: i32 = 1;
const COLUMNS: &str = "event_id,user_id,event_type,component,value,unit,timestamp,period_start,tz_offset_min,\
                       device_id,gateway_id,location,clock,metadata,version,deleted";

/// The gateway's run and the bare loop's right after it.
struct Run {
    gateway: Cost,
    bare: Cost,
}

fn main() {
    let arguments = Arguments::read();
    let events = arguments.number("--events", if arguments.has("--long") { 1_000_000 } else { 200_000 });
    let dir = arguments.folder();
    let server = Server::clickhouse();
    let password = dir.path().join("password");
    fs::write(&password, server.get("CLICKHOUSE_PASSWORD")).unwrap();
    let warehouse = Warehouse {
        url: server.get("CLICKHOUSE_URL").trim_end_matches('/').to_owned(),
        user: server.get("CLICKHOUSE_USER").to_owned(),
        password,
    };
    let backlog = Backlog::fill(dir.path(), events);
    let runs: Vec<Run> = (0..arguments.number("--runs", 3))
        .map(|run| drain(&warehouse, &backlog, &dir.path().join(format!("run-{run}"))))
        .collect();
    let of = |figure: &dyn Fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let rate = |cost: &Cost| backlog.events as f64 / cost.wall.as_secs_f64();
    let each = |cost: &Cost| cost.cpu.as_secs_f64() * 1e6 / backlog.events as f64;
    println!("clickhouse, a full store: {} events, medians of {} runs", backlog.events, runs.len());
    println!(
        "  {:.0} events/s, bare loop {:.0}: {:.0} %; cpu {:.2} us/event, bare loop {:.2}; peak RSS {:.1} MiB",
        of(&|run| rate(&run.gateway)),
        of(&|run| rate(&run.bare)),
        of(&|run| rate(&run.gateway) / rate(&run.bare)) * 100.0,
        of(&|run| each(&run.gateway)),
        of(&|run| each(&run.bare)),
        of(&|run| run.gateway.peak_rss_kib as f64 / 1_024.0),
    );
}

fn drain(warehouse: &Warehouse, backlog: &Backlog, dir: &Path) -> Run {
    let (database, beside) = (warehouse.database(), warehouse.database());
    let gateway = backlog.drain(dir, &warehouse.destination(&database)).cost;
    let count = warehouse.ask(&format!("SELECT count() FROM {database}.biometric_events FORMAT TSV"));
    assert_eq!(String::from_utf8(count).unwrap().trim(), backlog.events.to_string(), "each once");
    let bare = warehouse.bare(&warehouse.blocks(&database), &beside, backlog.events);
    for database in [database, beside] {
        warehouse.ask(&format!("DROP DATABASE {database}"));
    }
    Run { gateway, bare }
}

/// A running engine.
struct Warehouse {
    url: String,
    user: String,
    password: PathBuf,
}

impl Warehouse {
    /// A database of a new name with the table in it.
    fn database(&self) -> String {
        let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let mut settings = Settings::new(&self.url, &name);
        settings.user = Some(self.user.clone());
        settings.password_file = Some(self.password.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(schema::apply(&settings)).unwrap();
        name
    }

    fn destination(&self, database: &str) -> String {
        format!(
            "[[destination]]\nname = \"out\"\nkind = \"clickhouse\"\nurl = {:?}\ndatabase = {database:?}\nuser = {:?}\n\
             password_file = {:?}\n",
            self.url, self.user, self.password
        )
    }

    /// The rows that arrived, in blocks as they were sent.
    fn blocks(&self, database: &str) -> Vec<Vec<u8>> {
        let block = |nth: u64| {
            let sql = format!(
                "SELECT {COLUMNS} FROM {database}.biometric_events ORDER BY timestamp, device_id, event_type \
                 LIMIT {BLOCK_ROWS} OFFSET {} SETTINGS output_format_binary_write_json_as_string=1 FORMAT RowBinary",
                nth * BLOCK_ROWS
            );
            self.ask(&sql)
        };
        (0..BLOCKS).map(block).filter(|rows| !rows.is_empty()).collect()
    }

    /// Compresses and inserts `count` rows, block after block.
    fn bare(&self, blocks: &[Vec<u8>], database: &str, count: u64) -> Cost {
        let query = format!("INSERT INTO {database}.biometric_events ({COLUMNS}) FORMAT RowBinary").replace(' ', "%20");
        let settings = "async_insert=0&wait_end_of_query=1&insert_deduplicate=1&max_insert_block_size=1048449\
                        &min_insert_block_size_rows=1048449&min_insert_block_size_bytes=268402944\
                        &deduplicate_blocks_in_dependent_materialized_views=1&input_format_binary_read_json_as_string=1";
        let pid = std::process::id();
        let (start, cpu_before) = (Instant::now(), cpu(pid));
        let mut connection = self.connect();
        for (nth, block) in blocks.iter().cycle().take(count.div_ceil(BLOCK_ROWS) as usize).enumerate() {
            let body = zstd::bulk::compress(block, ZSTD_LEVEL).unwrap();
            let target = format!("/?query={query}&{settings}&insert_deduplication_token={nth}");
            self.post(&mut connection, &target, "Content-Encoding: zstd\r\n", &body);
        }
        Cost { wall: start.elapsed(), cpu: cpu(pid) - cpu_before, peak_rss_kib: 0, written: 0 }
    }

    fn ask(&self, sql: &str) -> Vec<u8> {
        self.post(&mut self.connect(), "/", "", sql.as_bytes())
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
        stream.set_nodelay(true).unwrap();
        BufReader::new(stream)
    }

    /// One request on a connection that stays open, and the answer's body.
    fn post(&self, connection: &mut BufReader<TcpStream>, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let (user, key) = (&self.user, fs::read_to_string(&self.password).unwrap());
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: warehouse\r\nX-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {key}\r\n\
             {headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        connection.get_mut().write_all(&request).unwrap();
        let mut status = String::new();
        connection.read_line(&mut status).unwrap();
        let (mut length, mut chunked, mut line) = (0, false, String::new());
        while line != "\r\n" {
            line.clear();
            connection.read_line(&mut line).unwrap();
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            chunked |= lower.starts_with("transfer-encoding:") && lower.contains("chunked");
        }
        let answer = if chunked { chunks(connection) } else { exactly(connection, length) };
        assert!(status.contains(" 200 "), "{status}{}", String::from_utf8_lossy(&answer));
        answer
    }
}

fn exactly(connection: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    connection.read_exact(&mut bytes).unwrap();
    bytes
}

fn chunks(connection: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut length = String::new();
        connection.read_line(&mut length).unwrap();
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        let chunk = exactly(connection, length + 2);
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..length]);
    }
}
