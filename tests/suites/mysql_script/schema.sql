-- a dump; with a semicolon
CREATE TABLE orders (
    id INT AUTO_INCREMENT PRIMARY KEY, item VARCHAR(50) DEFAULT 'a;b', status VARCHAR(50),
    note VARCHAR(50), api_token VARCHAR(50));
CREATE TABLE stock (item VARCHAR(50) PRIMARY KEY, amount INT);
CREATE TABLE log (words VARCHAR(50)); /* no; key */
CREATE VIEW names AS SELECT item FROM orders;
CREATE VIEW all_names AS SELECT item FROM names;
INSERT INTO log VALUES ('it''s; \' fine');
