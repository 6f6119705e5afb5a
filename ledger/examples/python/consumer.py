"""A consumer with an effect that takes place exactly once: it writes each order into a table of its own.

The id of the event is inserted in the transaction of the effect, and the message is acknowledged after the commit. An event
that comes again finds its id, and has no effect.
"""

import json
import os

import pika
import psycopg

PREFETCH = 100

TABLE = """
    CREATE TABLE IF NOT EXISTS shipments (
        event_id text PRIMARY KEY,
        order_id text NOT NULL,
        user_id text
    )"""

INSERT = """
    INSERT INTO shipments (event_id, order_id, user_id) VALUES (%s, %s, %s)
    ON CONFLICT (event_id) DO NOTHING"""


def ship(database: psycopg.Connection, event: dict) -> None:
    with database.transaction():
        user = event["data"].get("userId")
        is_new = database.execute(INSERT, (event["id"], event["subject"], user)).rowcount == 1
        if is_new:
            # Further effects of a new order go here, in the same transaction.
            print("order", event["subject"], flush=True)


def main() -> None:
    with (
        psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database,
        pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as broker,
    ):
        database.execute(TABLE)
        channel = broker.channel()
        channel.basic_qos(prefetch_count=PREFETCH)
        for method, _, body in channel.consume(os.environ["AMQP_QUEUE"]):
            ship(database, json.loads(body))
            channel.basic_ack(method.delivery_tag)


if __name__ == "__main__":
    main()
