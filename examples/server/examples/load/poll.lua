-- Polls for one device code after the other, from the file named by the first argument.
local bodies = {}
local next = 0
local form = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&client_id=client_cli&device_code="

function init(arguments)
  for code in io.lines(arguments[1]) do
    bodies[#bodies + 1] = form .. code
  end
end

wrk.method = "POST"
wrk.headers["content-type"] = "application/x-www-form-urlencoded"

function request()
  next = next % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next])
end
