-- Secrets stand among the other fields of their integration, sealed. Those from before are sealed at the next start.
UPDATE integration SET config = json_set(config, '$.secrets', json((
    SELECT json_group_array(json_object('sealed', value))
      FROM (SELECT value FROM signing_secret WHERE integration = number ORDER BY position)
)));
DROP TABLE signing_secret;
