-- What wrk sends and how it judges every answer. Never lets a failed call pass as a quick one: an answer must be 200, hold the words that only
-- a success has, and no error.
--   wrk ... -s load.lua URL -- FACE PAUSE KEY [WEIGHT TOOL ARGUMENTS WORDS]...
-- FACE is rest, mcp (revision 2025-11-25) or mcp2026; PAUSE is what each caller waits between two calls, in milliseconds.
-- Prints one line: calls a second, p50 and p99 in milliseconds, failures, calls.

local threads = {}
calls, failures, first = 0, 0, ""
local requests, words, order, pause, n = {}, {}, {}, 0, 0 -- with several tools an answer may hold the words of any: wrk does not say whose it is

function setup(thread) table.insert(threads, thread) end

function init(args)
    local face, key = args[1], args[3]
    pause = tonumber(args[2])
    local kind = 0
    for i = 4, #args, 4 do
        local tool, arguments = args[i + 1], args[i + 2]
        kind = kind + 1
        local headers = {
            ["Authorization"] = "Bearer " .. key,
            ["Content-Type"] = "application/json",
            ["Accept"] = "application/json, text/event-stream",
        }
        local path, body = "/mcp", nil
        if face == "mcp" then headers["MCP-Protocol-Version"] = "2025-11-25" end
        if face == "rest" then
            path, body = "/api/v1/tools/" .. tool, arguments
        else
            local meta = ""
            if face == "mcp2026" then
                headers["MCP-Protocol-Version"] = "2026-07-28"
                headers["Mcp-Method"] = "tools/call"
                headers["Mcp-Name"] = tool
                meta = ',"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"load","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}'
            end
            body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"' .. tool .. '","arguments":' .. arguments .. meta .. "}}"
        end
        requests[kind] = wrk.format("POST", path, headers, body)
        words[kind] = args[i + 3]
        for _ = 1, tonumber(args[i]) do table.insert(order, kind) end
    end
end

function request()
    n = n + 1
    -- 7 is prime to every sum of weights used here: kinds alternate instead of coming in blocks.
    return requests[order[(n * 7) % #order + 1]]
end

function delay() return pause end

function response(status, headers, body)
    calls = calls + 1
    local good = false
    if status == 200 and not body:find('"isError":true', 1, true) then
        for _, word in ipairs(words) do
            if body:find(word, 1, true) then good = true; break end
        end
    end
    if not good then
        failures = failures + 1
        if first == "" then first = status .. " " .. body:sub(1, 400) end
    end
end

function done(summary, latency, _)
    local failed, answered = 0, 0
    for _, thread in ipairs(threads) do
        failed = failed + thread:get("failures")
        answered = answered + thread:get("calls")
        if thread:get("first") ~= "" then io.stderr:write(thread:get("first"), "\n") end
    end
    local e = summary.errors
    failed = failed + e.connect + e.read + e.write + e.timeout
    print(string.format("load %.1f %.3f %.3f %d %d", answered / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed, answered))
end
