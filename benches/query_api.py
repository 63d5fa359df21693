#!/usr/bin/env python3
"""What the Query API costs over the engine: the same statement with the same settings, asked of both by turns.

    python3 benches/query_api.py --api target/release/biogate-analytics --database NAME [--runs R] [--json]

CLICKHOUSE_URL with _USER and _PASSWORD names an engine that runs; NAME a landing zone there that holds heart rates
(`biogate simulate-fleet` makes some). Starts the API on a free loopback port with a token of its own, and ends it.
"""
import argparse, base64, http.client, json, os, socket, subprocess, tempfile, time, urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# As analytics/src/warehouse.rs sends them with each statement that reads.
SETTINGS = {"default_format": "JSON", "date_time_output_format": "iso", "output_format_json_quote_64bit_integers": "0", "wait_end_of_query": "1",
            "cancel_http_readonly_queries_on_client_close": "1", "max_execution_time": "10", "timeout_overflow_mode": "throw", "max_result_rows": "10000",
            "max_result_bytes": str(8 << 20), "result_overflow_mode": "throw", "max_memory_usage": str(2 << 30), "max_bytes_to_read": str(50 << 30),
            "read_overflow_mode": "throw", "max_threads": "4", "readonly": "1"}


def asked(connection, method, path, body, headers):
    begun = time.perf_counter()
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    took = (time.perf_counter() - begun) * 1_000
    if answer.status != 200:
        raise SystemExit(f"{path[:80]}: {answer.status} {text[:300]}")
    return took, json.loads(text)["data"]


def start(arguments, folder, env):
    """The API's process, its port and its token."""
    new = subprocess.run([arguments.api, "token", "new", "--name", "bench", "--role", "analyst", "--everybody"], capture_output=True, text=True, check=True)
    token = next(line for line in new.stderr.splitlines() if line.startswith("biogate_"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, text in {
        "tokens.toml": new.stdout,
        "password": env["CLICKHOUSE_PASSWORD"],
        "analytics.toml": f"""[warehouse]
url = "{env["CLICKHOUSE_URL"]}"
database = "{arguments.database}"
user = "{env["CLICKHOUSE_USER"]}"
password_file = "{folder}/password"
[api]
listen = "127.0.0.1:{port}"
tokens_file = "{folder}/tokens.toml"
requests_per_minute = 1000000
burst = 100000
""",
    }.items():
        with open(os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
    log = open(os.path.join(folder, "log"), "w")
    api = subprocess.Popen([arguments.api, "--config", os.path.join(folder, "analytics.toml"), "serve"], stdout=log, stderr=log)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return api, port, token
        except OSError:
            time.sleep(0.1)
    api.terminate()
    raise SystemExit("the API does not listen:\n" + open(os.path.join(folder, "log")).read())


def measure(arguments, env, port, token):
    engine = http.client.HTTPConnection(urllib.parse.urlsplit(env["CLICKHOUSE_URL"]).netloc)
    api = http.client.HTTPConnection("127.0.0.1", port)
    secret = base64.b64encode(f'{env["CLICKHOUSE_USER"]}:{env["CLICKHOUSE_PASSWORD"]}'.encode()).decode()
    basic, bearer = {"Authorization": f"Basic {secret}"}, {"Authorization": f"Bearer {token}"}
    to = lambda **more: "/?" + urllib.parse.urlencode({"database": arguments.database, **more})
    who = "SELECT DISTINCT user_id FROM biometric_events WHERE event_type = 'heart_rate' LIMIT 100"
    persons = [row["user_id"] for row in asked(engine, "POST", to(default_format="JSON"), who, basic)[1]]
    if not persons:
        raise SystemExit(f"{arguments.database} holds no heart rate")
    text = open(os.path.join(ROOT, "deploy/clickhouse/queries/daily_stats.sql")).read()
    took = {"engine": [], "api": []}
    for nth in range(arguments.runs + 10):
        person = persons[nth % len(persons)]
        straight = to(**SETTINGS, param_user_id=person, param_event_type="heart_rate", param_days="7")
        one = asked(engine, "POST", straight, text, basic)
        two = asked(api, "GET", f"/api/analytics/heart-rate/{person}?days=7", None, bearer)
        if len(one[1]) != len(two[1]) or not one[1]:
            raise SystemExit("the two do not answer the same")
        if nth >= 10:
            took["engine"].append(one[0])
            took["api"].append(two[0])
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--api", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="biogate-api-") as folder:
        api, port, token = start(arguments, folder, os.environ)
        try:
            took = measure(arguments, os.environ, port, token)
            fields = open(f"/proc/{api.pid}/stat").read().rsplit(")", 1)[1].split()
            cpu = (int(fields[11]) + int(fields[12])) * 1_000 / os.sysconf("SC_CLK_TCK") / (arguments.runs + 10)
        finally:
            api.terminate()
            api.wait()
    at = lambda times, share: sorted(times)[min(len(times) - 1, int(share * len(times)))]
    report = {"runs": arguments.runs, "api_cpu_ms": round(cpu, 2), "load": os.getloadavg()[0]}
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        engine, over = at(took["engine"], share), at(took["api"], share)
        report |= {f"engine_{name}_ms": round(engine, 2), f"api_{name}_ms": round(over, 2), f"overhead_{name}_ms": round(over - engine, 2)}
    if arguments.json:
        print(json.dumps(report))
        return
    print(", ".join(f"{name} {value}" for name, value in report.items()))


if __name__ == "__main__":
    main()
