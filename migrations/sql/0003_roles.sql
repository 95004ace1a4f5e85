GRANT SELECT, INSERT, UPDATE, DELETE ON metallm.budget_accounts, metallm.budgets TO metallm_service;
GRANT SELECT ON metallm.budgets TO metallm_analyst;
