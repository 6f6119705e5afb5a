-- A version of a sale's configuration, as operators recorded it.
CREATE TABLE sale_versions (
    sale text NOT NULL,
    -- Distinguishes this sale from an earlier one of the same name.
    creation text NOT NULL,
    version bigint NOT NULL,
    config jsonb NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sale, creation, version)
);

-- The changes of a sale, with the origin of each, as coordinators recorded them. Redis keeps only the latest ones.
CREATE TABLE sale_changes (
    sale text NOT NULL,
    creation text NOT NULL,
    -- Version of the configuration that the change made.
    version bigint NOT NULL,
    at timestamptz NOT NULL,
    change jsonb NOT NULL,
    PRIMARY KEY (sale, creation, version, at)
);

-- How far each shard's order stream is drained.
CREATE TABLE cursors (
    sale text NOT NULL,
    creation text NOT NULL,
    shard integer NOT NULL,
    -- Distinguishes the shard from one that was made again after it was lost.
    incarnation text NOT NULL,
    -- Number of the latest drained entry of the stream; 0 before the first.
    seq bigint NOT NULL DEFAULT 0,
    orders bigint NOT NULL DEFAULT 0,
    moved_at timestamptz NOT NULL DEFAULT now(),
    -- Orders up to the cursor that a restore took from here: their rows belong to earlier incarnations.
    imported bigint NOT NULL DEFAULT 0,
    -- Set when a restore replaced the shard. Nothing is written for it any more.
    closed_at timestamptz,
    PRIMARY KEY (sale, creation, shard, incarnation)
);

-- The latest look at all shards of a sale: how many units they had sold. It bounds the loss when their data is lost.
CREATE TABLE sightings (
    sale text NOT NULL,
    creation text NOT NULL,
    sold bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sale, creation)
);

-- The restores of sales whose data in Redis was lost. One that was interrupted goes on with its own config.
CREATE TABLE restores (
    sale text NOT NULL,
    creation text NOT NULL,
    number integer NOT NULL,
    config jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    -- Set at the end, and when another restore was begun instead.
    ended_at timestamptz,
    PRIMARY KEY (sale, creation, number)
);

-- The number of each sale's orders. A statement that writes orders holds the row until it is committed, so orders become
-- visible in the order of their positions: a reader who has seen position 7 has seen all before it.
CREATE TABLE positions (
    sale text NOT NULL,
    creation text NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sale, creation)
);

-- The orders, append-only. `id`, `aggregatetype`, `aggregateid`, `type` and `payload` are the columns that Debezium's
-- outbox event router reads.
CREATE TABLE order_events (
    sale text NOT NULL,
    creation text NOT NULL,
    shard integer NOT NULL,
    incarnation text NOT NULL,
    -- Number of the stream's entry, and the place of the buyer in it.
    seq bigint NOT NULL,
    n integer NOT NULL,
    -- Number of the order in its sale, from 1.
    position bigint NOT NULL,
    id uuid NOT NULL,
    aggregatetype text NOT NULL,
    aggregateid text NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    user_id text,
    at timestamptz NOT NULL,
    PRIMARY KEY (sale, creation, shard, incarnation, seq, n)
);

-- One unit for each user of a sale. An order that breaks this stops its shard, and a person looks at it.
CREATE UNIQUE INDEX order_events_one_per_user ON order_events (sale, creation, user_id);
CREATE UNIQUE INDEX order_events_id ON order_events (id);
CREATE UNIQUE INDEX order_events_position ON order_events (sale, creation, position);
CREATE INDEX order_events_by_order ON order_events (sale, creation, aggregateid);

-- How far each sink of the feed has the orders of a sale.
CREATE TABLE feeds (
    sink text NOT NULL,
    sale text NOT NULL,
    creation text NOT NULL,
    -- Number of the latest delivered order.
    position bigint NOT NULL DEFAULT 0,
    -- Changes with each move, also with one by a person.
    moved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, sale, creation)
);
