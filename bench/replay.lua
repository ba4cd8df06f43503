-- Sends the requests of a file in turn. They come prepared, so that one costs the load's core next to nothing.
local requests, count, sent = {}, 0, 0

function init (args)
  local file = assert(io.open(args[1], 'rb'))
  for text in file:read('*a'):gmatch('.-\r\n\r\n') do
    count = count + 1
    requests[count] = text
  end
  file:close()
end

function request ()
  sent = sent % count + 1
  return requests[sent]
end
