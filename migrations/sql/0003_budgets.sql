CREATE TABLE metallm.budget_accounts (
    budget TEXT NOT NULL,
    key TEXT NOT NULL,
    metadata_key TEXT,
    per TEXT,
    hard BOOLEAN,
    amount_usd DOUBLE PRECISION,
    queries BIGINT,
    spent_usd DOUBLE PRECISION,
    reserved_usd DOUBLE PRECISION,
    left_usd DOUBLE PRECISION,
    weight DOUBLE PRECISION,
    account JSONB,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT budget_accounts_pkey PRIMARY KEY (budget, key)
);

COMMENT ON TABLE metallm.budget_accounts IS
    'What each budget has spent and reserved, booked with the learner''s positions.';
COMMENT ON COLUMN metallm.budget_accounts.key IS 'Value of the metadata key, or empty.';
COMMENT ON COLUMN metallm.budget_accounts.account IS
    'The whole account; null until its first charge.';

CREATE VIEW metallm.budgets AS
SELECT budget, metadata_key, key, per, hard, amount_usd, queries, spent_usd, reserved_usd, left_usd,
       spent_usd + reserved_usd AS committed_usd,
       (spent_usd + reserved_usd) / nullif(queries, 0) AS usd_per_query, weight, updated_at
FROM metallm.budget_accounts
WHERE account IS NOT NULL
ORDER BY budget, key;

COMMENT ON VIEW metallm.budgets IS
    'What each budget has spent, and reserved for calls in flight, per value of its metadata key, '
    'as of updated_at; left_usd is what one more call may be expected to cost, weight is what the '
    'budget adds to the cost weight of queries.';
