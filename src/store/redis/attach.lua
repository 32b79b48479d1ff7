-- Attaches to a history: returns its state, or refuses. Each connection begins with this, and repeats it.
--
-- KEYS: the stream, and the hash of what is known about it.
-- ARGV: a name for a new history; and what the caller has seen: the name of the history, the number of an era of it,
-- and the highest sequence of that era. The last three are empty for nothing.
--
-- Returns the name of the history, its eras as `NUMBER:FIRST_SEQUENCE `, and its oldest and newest sequence.
local stream, meta = KEYS[1], KEYS[2]

local function refuse(text)
    return redis.error_reply('REFUSED ' .. text)
end

local function integer(number)
    return string.format('%.0f', number)
end

local replication = redis.call('INFO', 'replication')
if not replication:find('role:master', 1, true) then
    return refuse('this server is a replica: connect to the primary')
end
local run = redis.call('INFO', 'server'):match('run_id:(%w+)') .. ':' .. replication:match('master_replid:(%w+)')

local kind = redis.call('TYPE', stream).ok
local meta_kind = redis.call('TYPE', meta).ok
if (kind ~= 'none' and kind ~= 'stream') or (meta_kind ~= 'none' and meta_kind ~= 'hash') then
    return refuse('the keys ' .. stream .. ' and ' .. meta .. ' hold other data: use another name')
end
local exists = kind == 'stream'
local known = redis.call('HMGET', meta, 'lineage', 'era', 'run', 'eras')
local lineage, era, eras = known[1], tonumber(known[2]), known[4]
local is_known = lineage and era and known[3] and eras

local last = 0
if exists then
    local info = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
            last = tonumber(info[i + 1]:match('%-(%d+)$'))
        end
    end
    if not is_known then
        local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
        local field = newest and newest[2][1]
        if field ~= nil and field ~= 'by' and field ~= 'era' and field ~= 'loss' then
            return refuse('the key ' .. stream .. ' holds a stream of another program: use another name')
        end
    end
end

local begins = false
if is_known and exists then
    -- The server has restarted, or was a replica: the newest entries may be lost.
    begins = known[3] ~= run
    if begins then
        era = era + 1
    end
else
    redis.call('DEL', stream, meta)
    lineage, era, eras, last, begins = ARGV[1], 1, '', 0, true
end
if begins then
    last = last + 1
    -- The sequence continues over the eras, so that of an era's first entry is explicit.
    redis.call('XADD', stream, integer(era) .. '-' .. integer(last), 'era', integer(era))
    eras = eras .. integer(era) .. ':' .. integer(last) .. ' '
    while #eras > 4000 do
        eras = eras:gsub('^%S+ ', '', 1)
    end
    redis.call('HSET', meta, 'lineage', lineage, 'era', integer(era), 'run', run, 'eras', eras)
end

-- The caller may have seen more of an era than there is.
if ARGV[2] == lineage and ARGV[3] ~= '' then
    local is_found, ended = false, nil
    for number, first in eras:gmatch('(%d+):(%d+) ') do
        if is_found then
            ended = tonumber(first) - 1
            break
        end
        is_found = number == ARGV[3]
    end
    if ended and tonumber(ARGV[4]) > ended and redis.call('HSETNX', meta, 'loss' .. ARGV[3], ARGV[4]) == 1 then
        local id = redis.call('XADD', stream, integer(era) .. '-*', 'loss', ARGV[3] .. ':' .. integer(ended) .. ':' .. ARGV[4])
        last = tonumber(id:match('%-(%d+)$'))
    end
end

local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local first = oldest and oldest[1]:match('%-(%d+)$') or integer(last + 1)
return {lineage, eras, first, integer(last)}
