-- Asks Tidegate whether a request is allowed. For HAProxy 2.6 and later.

-- The proxy section "tidegate" of haproxy.cfg, which knows the nodes and which of them are up.
local url = "http://127.0.0.1:7799/v1/auth"
-- Milliseconds.
local patience = 1000
-- When no node answers: true lets requests through, false denies them.
local open = true

core.register_action("tidegate", { "http-req" }, function(txn)
  -- Nothing that a client writes is passed on but what is named here.
  local answer = core.httpclient():get {
    url = url,
    timeout = patience,
    headers = {
      ["x-forwarded-for"] = { txn.f:src() },
      ["x-forwarded-method"] = { txn.f:method() },
      ["x-forwarded-uri"] = { txn.f:pathq() },
      ["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" },
      ["x-forwarded-host"] = { txn.f:req_fhdr("host") or "" },
    },
  }
  local status = answer and answer.status or 503
  if status >= 500 then
    if not open then txn:set_var("txn.tidegate_denied", true) end
    return
  end
  for variable, header in pairs({ limit = "ratelimit", policy = "ratelimit-policy", retry = "retry-after" }) do
    local values = answer.headers[header]
    if values then txn:set_var("txn.tidegate_" .. variable, values[0]) end
  end
  if status ~= 200 then
    -- What cannot be asked about, as a path of two meanings, is refused whatever happens to nodes.
    txn:set_var(status == 429 and "txn.tidegate_denied" or "txn.tidegate_refused", true)
    txn:set_var("txn.tidegate_problem", answer.body)
  end
end)
