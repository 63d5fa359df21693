#!/usr/bin/env python3
"""How long the landing zone's queries take on a large table.

    python3 benches/warehouse.py [--rows N] [--persons P] [--hours H] [--dense N] [--runs R] [--most-gib G] [--minutes M]
                                [--keep DIR] [--json]

Makes the landing zone in a database of its own, fills it inside the engine (INSERT ... SELECT FROM numbers; the rows never
pass HTTP), asks the statements of deploy/clickhouse/queries/ and drops the database. CLICKHOUSE_URL with _USER and
_PASSWORD names an engine that runs already; without, tests/servers/clickhouse.sh starts one that is removed afterwards.

N is 100,000,000 rows of P = 500 persons over H = 1,440 hours: three of five heart rates, one temperature, one step count. --dense adds one
more person with a heart rate each second of the last 7 days (604,800 rows). Each landed 4 s after it was measured, so the
hours are remembered as in a year's work: the refresh of the roll-up is run once over all, and then as every 5 minutes.
It stops filling, and says so, before the disk holds more than G GiB (12) or M minutes (20) are over. --keep leaves engine and
table in DIR and asks them again the next time; with CLICKHOUSE_URL it is the engine that runs in DIR.
"""
import argparse, base64, glob, json, os, re, shutil, subprocess, sys, tempfile, time, urllib.parse, urllib.request, uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SLICES = 20
DENSE = "00000000-0000-4000-8000-0000000fffff"


class Engine:
    def __init__(self, url, user, password):
        self.url, self.user, self.password, self.database = url.rstrip("/"), user, password, None
        self.pid = None

    def cpu_ms(self):
        """User and system time of an engine of this bench's own, with its test HTTP front."""
        if self.pid is None:
            return None
        fields = open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * 1_000 / os.sysconf("SC_CLK_TCK")

    def sql(self, text, **parameters):
        settings = {f"param_{name}": value for name, value in parameters.items()}
        if self.database:
            settings["database"] = self.database
        request = urllib.request.Request(f"{self.url}/?{urllib.parse.urlencode(settings)}", text.encode())
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=1_800) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"the engine refuses: {error.read().decode()[:600]}\n{text[:300]}")

    def number(self, text, **parameters):
        return int(self.sql(text, **parameters).strip() or 0)


def started(folder):
    """An engine of this bench's own, and how to end it."""
    script = os.path.join(ROOT, "tests/servers/clickhouse.sh")
    installs = os.environ.get("BIOGATE_TEST_SERVERS", os.path.join(ROOT, "target/test-servers"))
    subprocess.run(["bash", script, "install", installs], check=True)
    if not os.path.islink(os.path.join(folder, "venv")):
        os.symlink(os.path.realpath(os.path.join(installs, "venv")), os.path.join(folder, "venv"))
    said = subprocess.run(["bash", script, "start", folder], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line), lambda: subprocess.run(["bash", script, "stop", folder])


def statements(text):
    """As src/forward/clickhouse/migrations.rs cuts a file."""
    found, statement = [], ""
    for line in text.splitlines():
        code = line.split("--")[0].rstrip()
        if not statement and not code.strip():
            continue
        if code.endswith(";"):
            found.append(statement + code[:-1])
            statement = ""
        else:
            statement += line + "\n"
    return found + ([statement] if statement.strip() else [])


COLUMNS = "event_id, user_id, event_type, component, value, unit, timestamp, tz_offset_min, device_id, gateway_id, metadata, ingested_at"
# Only a bench may say when a row landed.
FILLING = "SETTINGS max_threads = 2, max_insert_threads = 1, insert_allow_materialized_columns = 1"


def slice_of_time(nth, arguments):
    """A twentieth of the rows: all persons, a twentieth of the time."""
    persons = arguments.persons
    each = arguments.rows // SLICES // persons
    seconds = arguments.hours * 3_600 // SLICES
    start = f"now64(3, 'UTC') - toIntervalSecond({(SLICES - nth) * seconds})"
    return f"""INSERT INTO biometric_events ({COLUMNS})
WITH number % {persons} AS person, intDiv(number, {persons}) AS k, k % 5 AS what
SELECT generateUUIDv4(), toUUID(concat('00000000-0000-4000-8000-', lower(leftPad(hex(person), 12, '0')))),
       multiIf(what < 3, 'heart_rate', what = 3, 'temperature', 'steps'), if(what = 3, 'body', ''),
       multiIf(what < 3, 55 + cityHash64(number) % 60, what = 3, 36 + (cityHash64(number) % 20) / 10, cityHash64(number) % 40),
       multiIf(what < 3, '/min', what = 3, 'Cel', '{{steps}}'),
       {start} + toIntervalMillisecond(toUInt64(k * {seconds * 1000} / {each})) AS at, 60,
       concat('band-', toString(person)), concat('hub-', toString(intDiv(person, 5))),
       '{{"profile":"bluetooth-heart-rate/1"}}'::JSON(max_dynamic_paths=64), at + toIntervalSecond(4)
FROM numbers({each * persons}) {FILLING}"""


def dense(rows):
    return f"""INSERT INTO biometric_events ({COLUMNS})
SELECT generateUUIDv4(), '{DENSE}', 'heart_rate', '', 55 + cityHash64(number) % 60, '/min',
       now64(3, 'UTC') - toIntervalSecond(number) AS at, 60, 'strap-dense', 'hub-dense', '{{"profile":"bluetooth-heart-rate/1"}}'::JSON(max_dynamic_paths=64),
       at + toIntervalSecond(4)
FROM numbers({rows}) {FILLING}"""


ACTIVITY = """INSERT INTO user_activity (event_id, user_id, session_id, page, action, timestamp, duration, device, browser)
SELECT generateUUIDv4(), toUUID(concat('00000000-0000-4000-8000-', lower(leftPad(hex(number % 500), 12, '0')))),
       toUUID(concat('00000000-0000-4000-9000-', lower(leftPad(hex(intDiv(number, 20)), 12, '0')))),
       concat('/page/', toString(cityHash64(number) % 40)), 'view',
       now64(3, 'UTC') - toIntervalMillisecond(number * 2592), cityHash64(number) % 300, 'phone', 'firefox'
FROM numbers(1000000)"""


def fill(engine, arguments):
    """Returns the rows made and why they are fewer than asked for, where they are."""
    begun, why = time.time(), None
    most = arguments.most_gib * 2**30
    # The newest days first: a table that stays smaller still holds what the queries ask for.
    for nth in range(SLICES):
        made = time.time()
        engine.sql(slice_of_time(SLICES - 1 - nth, arguments))
        disk = engine.number("SELECT sum(bytes_on_disk) FROM system.parts WHERE database = currentDatabase()")
        print(f"  {nth + 1}/{SLICES} in {time.time() - made:.0f} s, {disk / 2**30:.2f} GiB with parts to be removed", file=sys.stderr, flush=True)
        minutes = (time.time() - begun) / 60
        if nth + 1 < SLICES and (disk * (1 + 2 / (nth + 1)) > most or minutes * (nth + 2) / (nth + 1) > arguments.minutes):
            why = f"stopped after {minutes:.1f} min and {disk / 2**30:.2f} GiB"
            break
    engine.sql(dense(arguments.dense))
    engine.sql(ACTIVITY)
    return engine.number("SELECT count() FROM biometric_events"), why, time.time() - begun


def timed(engine, name, text, runs, parameters, fewest):
    took, cpu = [], engine.cpu_ms()
    for nth in range(runs + 1):
        begun = time.perf_counter()
        answer = engine.sql(text, **parameters(nth))
        took.append((time.perf_counter() - begun) * 1_000)
        # An answer about nothing is quick, and no figure.
        if answer.count("\n") < fewest:
            raise SystemExit(f"{name} answers with {answer.count(chr(10))} rows, fewer than {fewest}")
    cpu = None if cpu is None else round((engine.cpu_ms() - cpu) / (runs + 1), 1)
    # The first one fills caches of marks and names; it is told beside the others.
    first, rest = took[0], sorted(took[1:])
    at = lambda share: rest[min(len(rest) - 1, int(share * len(rest)))]
    return {"query": name, "runs": runs, "cpu_ms": cpu, "first_ms": round(first, 1), "p50_ms": round(at(0.5), 1), "p95_ms": round(at(0.95), 1)}


def ask(engine, arguments):
    runs, persons, days = arguments.runs, arguments.persons, min(7, -(-arguments.hours // 24))
    query = lambda name: open(os.path.join(ROOT, "deploy/clickhouse/queries", f"{name}.sql")).read()
    person = lambda nth: f"00000000-0000-4000-8000-{nth * 37 % persons:012x}"
    one = {"event_type": "heart_rate", "days": "7"}
    seven = {"days": "7"}
    densest = lambda: [timed(engine, "the same, a person with one each second", query("daily_stats"), runs, lambda _: {"user_id": DENSE, **one}, days)]
    return [
        timed(engine, "daily heart rate of one person, 7 days (daily_stats)", query("daily_stats"), runs, lambda nth: {"user_id": person(nth), **one}, days),
        *(densest() if arguments.dense else []),
        timed(engine, "hours of one person, 7 days (hourly_metrics.sql)", query("hourly_metrics"), runs, lambda nth: {"user_id": person(nth), **seven}, min(7 * 24, arguments.hours)),
        timed(engine, "the same from the remembered hours (view hourly_metrics)", query("hourly_metrics").replace("hourly_metrics_exact", "hourly_metrics"), runs,
              lambda nth: {"user_id": person(nth), **seven}, min(7 * 24, arguments.hours)),
        timed(engine, "daily heart rate of every person, 7 days (document 6.1, daily_heart_rate)", query("daily_heart_rate"), max(5, runs // 10), lambda _: seven, days * persons),
        timed(engine, "activity funnel, 1 day of 1,000,000 views (document 6.1)", query("activity_funnel"), runs, lambda _: {"days": "1"}, 40),
        timed(engine, "by minute, last hour (document 6.1, realtime)", query("realtime"), max(5, runs // 10), lambda _: {"minutes": "60"}, 3 * 20),
    ]


def landing_zone():
    """The statements of all migrations, in their order."""
    paths = sorted(glob.glob(os.path.join(ROOT, "deploy/clickhouse/migrations/*.sql")))
    return [statement for path in paths for statement in statements(open(path).read())]


def refresh(engine, view, into):
    """What a refresh of the view does. Returns its seconds."""
    begun = time.time()
    made = next(text for text in landing_zone() if f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view} " in text)
    engine.sql(f"INSERT INTO {into}\n" + made.split(" AS\n", 1)[1])
    return round(time.time() - begun, 1)


def remember(engine):
    """Runs the roll-up over all that landed, and then again as every 5 minutes."""
    view = ("hourly_metrics_mv", "hourly_rollup")
    # Each view was refreshed once when it was made, over nothing.
    engine.sql("TRUNCATE TABLE hourly_rollup")
    engine.sql("TRUNCATE TABLE hourly_watermark")
    took = {"refresh_all_s": refresh(engine, *view)}
    engine.sql("INSERT INTO hourly_watermark SELECT max(ingested_at) - INTERVAL 15 MINUTE FROM biometric_events")
    took["refresh_s"] = refresh(engine, *view)
    return took


MERGES = "SELECT count() FROM system.merges WHERE database = currentDatabase()"
PARTS = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = '{}' AND active"


def make(engine, arguments):
    """The landing zone, filled. Returns what that took."""
    for statement in landing_zone():
        engine.sql(statement)
    # The table is made in minutes and not in a year: refreshes are run when it is whole, and not by the clock.
    views = (re.search(r"CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+) REFRESH", text) for text in landing_zone())
    for view in filter(None, views):
        engine.sql(f"SYSTEM STOP VIEW {view[1]}")
    rows, why, seconds = fill(engine, arguments)
    merging = time.time()
    while engine.number(MERGES) and time.time() - merging < 300:
        time.sleep(1)
    return {"asked": arguments.rows + arguments.dense, "stopped": why, "filled_s": round(seconds), "merging_s": round(time.time() - merging)}


def measure(engine, arguments):
    database = "bench" if arguments.keep else f"bench_{uuid.uuid4().hex}"
    engine.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
    engine.database = database
    try:
        report = {"asked": 0, "stopped": "kept from before"}
        if not engine.number(PARTS.format("biometric_events")):
            report = make(engine, arguments)
        report |= remember(engine)
        parts = PARTS.format("biometric_events")
        rows, disk = engine.number("SELECT count() FROM biometric_events"), engine.number(parts.replace("count()", "sum(bytes_on_disk)"))
        rollup = engine.number(PARTS.format("hourly_rollup").replace("count()", "sum(bytes_on_disk)"))
        report |= {"rows": rows, "parts": engine.number(parts), "bytes": disk, "bytes_a_row": round(disk / rows, 1), "rollup_bytes": rollup,
                   "load": os.getloadavg()[0], "version": engine.sql("SELECT version()").strip()}
        report["queries"] = ask(engine, arguments)
        return report
    finally:
        if not arguments.keep:
            engine.sql(f"DROP DATABASE {database} SYNC")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--persons", type=int, default=500)
    parser.add_argument("--hours", type=int, default=1_440)
    parser.add_argument("--dense", type=int, default=604_800)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--most-gib", type=float, default=12)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--keep", metavar="DIR")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder, stop = arguments.keep, lambda: None
    if folder:
        os.makedirs(folder, exist_ok=True)
    elif "CLICKHOUSE_URL" not in os.environ:
        folder = tempfile.mkdtemp(prefix="biogate-warehouse-")
    try:
        environment = os.environ
        if "CLICKHOUSE_URL" not in environment:
            environment, stop = started(folder)
        engine = Engine(*(environment.get(f"CLICKHOUSE_{what}", "") for what in ("URL", "USER", "PASSWORD")))
        if folder:
            engine.pid = int(open(os.path.join(folder, "chdb.pid")).read())
        report = measure(engine, arguments)
    finally:
        stop()
        if folder and not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"{report['rows']:,} rows of {report['asked']:,}{', ' + report['stopped'] if report['stopped'] else ''}; {report['parts']} parts, "
          f"{report['bytes'] / 2**30:.2f} GiB, {report['bytes_a_row']} bytes a row, {report['rollup_bytes'] / 2**20:.1f} MiB of roll-up; "
          f"filled in {report.get('filled_s')} s; load {report['load']:.1f}; {report['version']}")
    print(f"  roll-up: over all {report['refresh_all_s']} s, as every 5 minutes {report['refresh_s']} s")
    for query in report["queries"]:
        print(f"  {query['query']}: p50 {query['p50_ms']} ms, p95 {query['p95_ms']} ms, cpu {query['cpu_ms']} ms, first {query['first_ms']} ms, {query['runs']} runs")


if __name__ == "__main__":
    main()
