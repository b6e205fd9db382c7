"""A TypeScript client of openapi-typescript: it compiles, and a record goes through it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import textwrap
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.end_to_end.stage import RESOURCE, id_of, record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.end_to_end.stage import Stage

PACKAGES = ("openapi-typescript@7.13", "openapi-fetch@0.17", "typescript@5.9")
SCRIPT = f"""
    import createClient from "openapi-fetch";
    import type {{ components, paths }} from "./relay";

    declare const process: {{ argv: string[] }};
    const client = createClient<paths>({{ baseUrl: process.argv[2] + "/api" }});
    const body: components["schemas"]["{RESOURCE.name}"] = JSON.parse(process.argv[3]);

    async function main(): Promise<void> {{
      const started = await client.POST("/{RESOURCE.route}", {{ body }});
      if (!started.data) throw new Error(started.error?.title);
      for (let look = 0; look < 300; look++) {{
        const shown = await client.GET("/deliveries/{{id}}", {{ params: {{ path: {{ id: started.data.id }} }} }});
        if (!shown.data) throw new Error(shown.error?.title);
        if (shown.response.status === 200 && "createdTime" in shown.data) {{
          const state: components["schemas"]["Delivery"]["state"] = shown.data.state;
          console.log(state, shown.data.recordId);
          return;
        }}
        await new Promise((resolve) => setTimeout(resolve, 100));
      }}
      throw new Error("the delivery goes on");
    }}

    main();
"""


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
async def test_a_generated_typescript_client_works(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_bytes((await stage.ask("GET", "openapi.json")).content)
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "use.ts").write_text(textwrap.dedent(SCRIPT))

    def make() -> str:
        def run(*command: str) -> str:
            done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)  # noqa: S603, ours
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", *PACKAGES)
        run("node_modules/.bin/openapi-typescript", "openapi.json", "--output", "relay.d.ts")
        modern = ("--strict", "--target", "es2022", "--module", "commonjs", "--lib", "es2022,dom")
        run("node_modules/.bin/tsc", *modern, "--skipLibCheck", "use.ts")
        return run("node", "use.js", stage.host.url, msgspec.json.encode(record(1)).decode())

    told = await asyncio.to_thread(make)

    assert told.split() == ["delivered", id_of(1)]
    assert (await stage.stored())[id_of(1)] == 1
