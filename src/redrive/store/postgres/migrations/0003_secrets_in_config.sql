-- Secrets stand among the other fields of their integration, sealed. Those from before are sealed at the next start.
UPDATE integration SET config = jsonb_set(config::jsonb, '{secrets}', coalesce((
    SELECT jsonb_agg(jsonb_build_object('sealed', value) ORDER BY position)
      FROM signing_secret WHERE integration = number
), '[]'))::text;
DROP TABLE signing_secret;
